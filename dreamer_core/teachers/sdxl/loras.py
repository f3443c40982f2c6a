"""LoRAs merged into SDXL's weights: W + weight * alpha / rank * B A (Hu et al., 2106.09685).

Layers are found through a table of every name that a trainer may have given them (diffusers, peft, kohya, the original
layout), so that no layer of a file is dropped in silence: what has no place in the model is counted and reported.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from ..safetensors_header import Header
from .checkpoints import CheckpointKind, identify, require
from .original_layout import original_unet_name

log = logging.getLogger(__name__)

EXPECTED = "an SDXL LoRA (.safetensors)"
REMEDY = "use a LoRA that was trained on SDXL"
TEXT_PARTS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
ENDINGS = re.compile(
    r"(?P<layer>.+?)(?:\.lora|_lora|\.lora_linear_layer)?"
    r"(?:\.(?P<down>lora_down|lora_A|down)|\.(?P<up>lora_up|lora_B|up))(?:\.default)?\.weight"
)


@dataclass
class LoraLayer:
    """The two factors of one layer's change."""

    down: Tensor | None = None  # [r, in] or [r, in, kh, kw]
    up: Tensor | None = None  # [out, r] or [out, r, 1, 1]
    alpha: float | None = None

    def change(self) -> Tensor:
        """alpha / rank * up down, [out, in * kh * kw] in float32; alpha is the rank where the file gives none."""
        assert self.down is not None
        assert self.up is not None
        scale = 1.0 if self.alpha is None else self.alpha / self.down.shape[0]
        return scale * (self.up.float().flatten(1) @ self.down.float().flatten(1))


def check_lora(path: Path, context_dim: int | None = None) -> None:
    """Raise InputError unless `path` is a LoRA, and one whose cross-attention reads `context_dim` wide embeddings."""
    found = require(identify(path), "--lora", EXPECTED, (CheckpointKind.LORA,))
    assert found.header is not None
    if found.header.having("dora_scale", "lora_magnitude_vector", ".lora_mid."):
        got = f"a DoRA or a LoRA with a middle factor ({path.name})"
        raise InputError("--lora", "a plain LoRA", got, "merge it into a checkpoint with the tool that made it")
    width = lora_context_dim(found.header)
    if width is not None and context_dim is not None and width != context_dim:
        family = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}.get(width, "another model")
        got = f"a LoRA for {family} (cross-attention width {width}, this model's is {context_dim}) ({path.name})"
        raise InputError("--lora", EXPECTED, got, REMEDY)


def lora_context_dim(header: Header) -> int | None:
    """Width of the text embedding that a LoRA's cross-attention keys read; None where it has none."""
    for name, shape in header.shapes.items():
        found = ENDINGS.fullmatch(name)
        if found and found["down"] and "attn2" in name and "to_k" in name and len(shape) >= 2:
            return shape[1]
    return None


def merge_loras(parts: Mapping[str, Any], loras: Sequence[tuple[Path, float]]) -> None:
    """Add every LoRA [(path, weight)] to the weights of `unet`, `text_encoder` and `text_encoder_2`, in place.

    Errors: InputError where a file is not a LoRA, is for another model, or touches nothing in this one.
    """
    table = layer_names(parts) if loras else {}
    for path, weight in loras:
        check_lora(path, int(parts["unet"].config.cross_attention_dim))
        layers = read_lora(path)
        placed = [(table[name], layer) for name, layer in layers.items() if name in table]
        unplaced = [name for name in layers if name not in table]
        if not placed:
            got = f"a LoRA none of whose layers exist in this model, first {unplaced[0]} ({path.name})"
            raise InputError("--lora", EXPECTED, got, REMEDY)
        if unplaced:
            log.warning("%s: %d of %d layers have no place in this model", path.name, len(unplaced), len(layers))
        for module, layer in placed:
            _check_fit(module, layer, path)
        for module, layer in placed if weight else []:
            merged = module.weight.detach().float() + weight * layer.change().view(module.weight.shape)
            module.weight.data = merged.to(module.weight.dtype)


def _check_fit(module: Any, layer: LoraLayer, path: Path) -> None:
    shape = module.weight.flatten(1).shape
    if layer.down is None or layer.up is None:
        raise InputError("--lora", EXPECTED, f"a LoRA with half of a layer missing ({path.name})", "download it again")
    change_shape = (layer.up.shape[0], layer.down.flatten(1).shape[1])
    if change_shape != tuple(shape) or layer.up.flatten(1).shape[1] != layer.down.shape[0]:
        got = f"a LoRA that does not fit this model: a layer is {change_shape}, here {tuple(shape)} ({path.name})"
        raise InputError("--lora", EXPECTED, got, REMEDY)


def read_lora(path: Path) -> dict[str, LoraLayer]:
    """Layers of a LoRA file by the name that the file gives them, without its endings."""
    from safetensors import safe_open

    layers: dict[str, LoraLayer] = {}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name.endswith(".alpha"):
                layers.setdefault(_layer_name(name.removesuffix(".alpha")), LoraLayer()).alpha = float(
                    file.get_tensor(name)
                )
            elif found := ENDINGS.fullmatch(name):
                layer = layers.setdefault(_layer_name(found["layer"]), LoraLayer())
                setattr(layer, "down" if found["down"] else "up", file.get_tensor(name))
    _apply_peft_alphas(layers, metadata)
    return {name: layer for name, layer in layers.items() if layer.down is not None or layer.up is not None}


def _layer_name(name: str) -> str:
    """Old diffusers files name the attention processor; `to_out` is a list in the model."""
    name = name.replace(".processor.", ".")
    return f"{name}.0" if name.endswith(".to_out") else name


def _apply_peft_alphas(layers: dict[str, LoraLayer], metadata: Mapping[str, str]) -> None:
    """Alphas that peft keeps in the file's metadata: one per part, with exceptions by layer."""
    try:
        settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except json.JSONDecodeError:
        settings = {}  # a remark by another tool; the alphas in the tensors hold
    for name, layer in layers.items():
        part, _, inner = name.partition(".")
        alpha = settings.get(f"{part}.lora_alpha")
        if alpha is None or layer.alpha is not None or layer.down is None:
            continue
        exceptions: Mapping[str, float] = settings.get(f"{part}.alpha_pattern") or {}
        chosen = next((v for key, v in exceptions.items() if re.match(rf"(.*\.)?{key}$", inner)), alpha)
        rank = layer.down.shape[0]
        layer.alpha = float(chosen) * (rank**0.5 if settings.get(f"{part}.use_rslora") else 1.0)


def layer_names(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Every name under which a LoRA file may address a linear or convolution layer of these parts."""
    table: dict[str, Any] = {}
    unet = parts["unet"]
    attends = [hasattr(block, "attentions") for block in unet.up_blocks]
    for name, module in _weighted(unet):
        original = original_unet_name(f"{name}.weight", unet.config.layers_per_block, attends).removesuffix(".weight")
        for alias in (
            name,
            f"unet.{name}",
            f"diffusion_model.{original}",
            f"lora_unet_{name}".replace(".", "_"),
            f"lora_unet_{original}".replace(".", "_"),
        ):
            table[alias] = module
    for part, prefix in TEXT_PARTS.items():
        for name, module in _weighted(parts[part]):
            plain = name.removeprefix("text_model.")  # transformers 5.6 dropped this level from the first encoder
            for inner in (plain, f"text_model.{plain}"):
                table[f"{part}.{inner}"] = module
                table[f"{prefix}{inner}".replace(".", "_")] = module
    return table


def _weighted(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
