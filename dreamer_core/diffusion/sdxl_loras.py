"""LoRAs merged into an SDXL's UNet and text encoders; diffusers reads its own, peft's and kohya's key formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .checkpoints import CheckpointKind, identify, require
from .safetensors_header import Header

EXPECTED = "an SDXL LoRA (.safetensors)"


def check_lora(path: Path, context_dim: int | None) -> None:
    """Raise InputError unless `path` is a LoRA whose cross-attention reads `context_dim` (if given) wide embeddings."""
    found = require(identify(path), "--lora", EXPECTED, (CheckpointKind.LORA,))
    assert found.header is not None
    width = lora_context_dim(found.header)
    if width is not None and context_dim is not None and width != context_dim:
        family = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}.get(width, "another model")
        got = f"a LoRA for {family} (cross-attention width {width}, this model's is {context_dim}) ({path.name})"
        raise InputError("--lora", EXPECTED, got, "use a LoRA that was trained on SDXL")


def lora_context_dim(header: Header) -> int | None:
    """Width of the text embedding that a LoRA's cross-attention keys read; None where it has none."""
    down = (".lora_down.", ".lora_A.", "_lora.down.", ".lora.down.")
    for name, shape in header.shapes.items():
        if "attn2" in name and "to_k" in name and len(shape) >= 2 and any(d in name for d in down):
            return shape[1]
    return None


def merge_loras(pipeline: Any, loras: Sequence[tuple[Path, float]]) -> None:
    """Add weight * alpha / rank * B A of every LoRA [(path, weight)] to the pipeline's weights, in order.

    Errors: InputError where a file is not a LoRA, is for another model, or touches nothing in this one.
    """
    from safetensors.torch import load_file

    for i, (path, weight) in enumerate(loras):
        check_lora(path, int(pipeline.unet.config.cross_attention_dim))
        name = f"lora_{i}"
        try:
            pipeline.load_lora_weights(load_file(path), adapter_name=name)
        except (ValueError, RuntimeError, KeyError, IndexError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            got = f"a LoRA that does not fit this model ({path.name}): {reason}"
            raise InputError("--lora", EXPECTED, got, "use a LoRA that was trained on SDXL") from error
        if not pipeline.get_list_adapters():
            got = f"a LoRA none of whose layers exist in this model ({path.name})"
            raise InputError("--lora", EXPECTED, got, "use a LoRA that was trained on SDXL")
        pipeline.fuse_lora(lora_scale=weight, adapter_names=[name])
        pipeline.unload_lora_weights()
