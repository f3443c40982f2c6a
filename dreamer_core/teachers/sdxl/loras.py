"""LoRAs merged into SDXL's weights: W + weight * alpha / rank * B A (Hu et al., 2106.09685).

Layers are found through a table of every name that a trainer may have given them (diffusers, peft, kohya, the original
layout), so that no layer of a file is dropped in silence: what has no place in the model is counted and reported.
"""

from __future__ import annotations

import json
import logging
import math
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
            got = f"a LoRA none of whose layers exist in this model, first {_shown(unplaced[0])} ({path.name})"
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
    """Layers of a LoRA file by the name that the file gives them, without its endings.

    Errors: InputError where a tensor or the metadata is not what a LoRA holds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = [n for n in file.keys() if n.endswith(".alpha") or ENDINGS.fullmatch(n)]  # noqa: SIM118 (not a dict)
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, KeyError, RuntimeError, AttributeError) as error:  # a type that torch lacks
        raise refused(EXPECTED, f"a file that cannot be read ({_shown(error)})", path) from error
    layers: dict[str, LoraLayer] = {}
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            value = tensor.item() if tensor.numel() == 1 else list(tensor.shape)
            layers.setdefault(_layer_name(name.removesuffix(".alpha")), LoraLayer()).alpha = _number(value, name, path)
        elif found := ENDINGS.fullmatch(name):
            layer = layers.setdefault(_layer_name(found["layer"]), LoraLayer())
            setattr(layer, "down" if found["down"] else "up", _factor(tensor, name, path))
    _apply_peft_alphas(layers, metadata, path)
    return {name: layer for name, layer in layers.items() if layer.down is not None or layer.up is not None}


def refused(expected: str, got: str, path: Path, remedy: str = "use another LoRA, or get this one again") -> InputError:
    """The error for something in a LoRA file."""
    return InputError("--lora", expected, f"{got} ({path.name})", remedy)


def _shown(value: object) -> str:
    """What a file holds, in one short line."""
    text = repr(str(value) if isinstance(value, BaseException) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _number(value: object, name: str, path: Path) -> float:
    """A finite number of the file. Errors: InputError."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise refused(f"a finite number as {_shown(name)}", _shown(value), path)


def _factor(tensor: Tensor, name: str, path: Path) -> Tensor:  # [r, ...] or [out, ...]
    """A factor of a layer. Errors: InputError."""
    got = f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"
    if tensor.is_floating_point() and tensor.dim() >= 2 and tensor.numel():
        if bool(tensor.float().isfinite().all()):
            return tensor
        got = "NaN or inf"
    raise refused(f"a matrix of finite real numbers as {_shown(name)}", got, path)


def _layer_name(name: str) -> str:
    """Old diffusers files name the attention processor; `to_out` is a list in the model."""
    name = name.replace(".processor.", ".")
    return f"{name}.0" if name.endswith(".to_out") else name


PEFT = "lora_adapter_metadata"
"""Where diffusers keeps peft's settings: a JSON object whose names begin with the part's."""
NAME_PATTERN = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?")


def _apply_peft_alphas(layers: dict[str, LoraLayer], metadata: Mapping[str, str], path: Path) -> None:
    """Alphas that peft keeps in the file's metadata: one per part, with exceptions by layer."""
    settings = _object(metadata.get(PEFT, "{}"), path)
    for part in ("unet", *TEXT_PARTS):
        alpha = settings.get(f"{part}.lora_alpha")
        exceptions = _alpha_pattern(settings, part, path)
        stabilised = settings.get(f"{part}.use_rslora")
        if not isinstance(stabilised, (bool, type(None))):
            raise refused(f"true or false as {part}.use_rslora", _shown(stabilised), path)
        if alpha is None:
            continue
        alpha = _number(alpha, f"{part}.lora_alpha", path)
        for name, layer in layers.items():
            if not name.startswith(f"{part}.") or layer.alpha is not None or layer.down is None:
                continue
            chosen = _exception(exceptions, name.removeprefix(f"{part}."))
            rank = layer.down.shape[0]
            layer.alpha = (alpha if chosen is None else chosen) * (rank**0.5 if stabilised else 1.0)


def _object(text: str, path: Path) -> dict[str, Any]:
    """peft's settings. Errors: InputError for what is no JSON object."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise refused(f"a JSON object as {PEFT}", _shown(text), path)
    return settings


def _alpha_pattern(settings: Mapping[str, Any], part: str, path: Path) -> dict[str, tuple[int, float]]:
    """Name of a layer or the end of one, `^` before a whole one -> its place among peft's patterns, and alpha.

    peft matches regular expressions, `re.match(rf"(.*\\.)?({pattern})$", name)`, and files hold names; an expression of
    a file is never run, since one can take for ever. Errors: InputError.
    """
    name = f"{part}.alpha_pattern"
    patterns = settings.get(name)
    if not isinstance(patterns, (dict, type(None))):
        raise refused(f"a JSON object as {name}", _shown(patterns), path)
    found: dict[str, tuple[int, float]] = {}
    for i, (pattern, value) in enumerate((patterns or {}).items()):
        if not NAME_PATTERN.fullmatch(pattern):
            raise refused(f"names of layers in {name}", _shown(pattern), path, "use one without regular expressions")
        alpha = _number(value, f"{name}.{pattern}", path)
        found.setdefault(pattern.replace("\\.", ".").removesuffix("$"), (i, alpha))
    return found


def _exception(patterns: Mapping[str, tuple[int, float]], name: str) -> float | None:
    """The alpha of the first pattern that names a layer."""
    levels = name.split(".")
    ends = [f"^{name}", *(".".join(levels[i:]) for i in range(len(levels)))]
    return min((patterns[end] for end in ends if end in patterns), default=(0, None))[1]


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
