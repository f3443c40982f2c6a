"""LoRAs merged into SDXL's weights: W + weight * alpha / rank * B A (Hu et al., 2106.09685), and its relatives.

Layers are found through a table of every name that a trainer may have given them (diffusers, peft, kohya, the original
layout), so that no layer of a file is dropped in silence: what has no place in the model is counted and reported.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from ..safetensors_header import Header, read_header
from .checkpoints import CheckpointKind, identify, require
from .lora_kinds import BIAS, DORA, PARTS, REFUSED, LoraLayer, part_of
from .original_layout import original_unet_name

log = logging.getLogger(__name__)

EXPECTED = "an SDXL LoRA (.safetensors)"
REMEDY = "use a LoRA that was trained on SDXL"
MERGE = "merge it into a checkpoint with the tool that made it"
TEXT_PARTS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


def check_lora(path: Path, context_dim: int | None = None) -> None:
    """Raise InputError unless `path` is a LoRA, and one whose cross-attention reads `context_dim` wide embeddings."""
    found = require(identify(path), "--lora", EXPECTED, (CheckpointKind.LORA,))
    assert found.header is not None
    for kind, names in REFUSED.items():
        if found.header.having(*names):
            known = ", ".join(PARTS)
            got = f"one of the kind {kind} ({path.name})"
            raise InputError(
                "--lora", f"a LoRA of a kind that is merged here ({known}; with DoRA or without)", got, MERGE
            )
    width = lora_context_dim(found.header)
    if width is not None and context_dim is not None and width != context_dim:
        family = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}.get(width, "another model")
        got = f"a LoRA for {family} (cross-attention width {width}, this model's is {context_dim}) ({path.name})"
        raise InputError("--lora", EXPECTED, got, REMEDY)


def lora_context_dim(header: Header) -> int | None:
    """Width of the text embedding that a LoRA's cross-attention keys read; None where it has none."""
    for name, shape in header.shapes.items():
        found = part_of(name)
        if found and found[1] in ("down", "hada_w1_b") and "attn2" in name and "to_k" in name and len(shape) >= 2:
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
        placed = [(table[name], name, layer) for name, layer in layers.items() if name in table]
        unplaced = [name for name in layers if name not in table]
        if not layers:
            first = next(iter(read_header(path)), "nothing")
            got = f"one without a layer of a known kind, first {_shown(first)} ({path.name})"
            raise InputError("--lora", EXPECTED, got, MERGE)
        names: dict[int, str] = {}
        for module, name, _ in placed:
            if names.setdefault(id(module), name) != name:
                got = f"one that holds a layer twice, as {names[id(module)]} and {name} ({path.name})"
                raise InputError("--lora", EXPECTED, got, MERGE)
        if not placed:
            got = f"a LoRA none of whose layers exist in this model, first {_shown(unplaced[0])} ({path.name})"
            raise InputError("--lora", EXPECTED, got, REMEDY)
        if unplaced:
            log.warning("%s: %d of %d layers have no place in this model", path.name, len(unplaced), len(layers))
        merged = [(module, *_merged(module, name, layer, weight, path)) for module, name, layer in placed]
        for module, new_weight, new_bias in merged if weight else []:  # nothing is changed unless everything fits
            if new_weight is not None:
                module.weight.data = new_weight
            if new_bias is not None:
                module.bias.data = new_bias


def _merged(
    module: Any, name: str, layer: LoraLayer, strength: float, path: Path
) -> tuple[Tensor | None, Tensor | None]:
    """New weight and bias of a layer, None where it keeps its own. Errors: InputError where the change does not fit."""
    if layer.missing:
        got = f"a LoRA with half of a layer missing: {_shown(name)} has no {', '.join(layer.missing)} ({path.name})"
        raise InputError("--lora", EXPECTED, got, "download it again")
    weight = bias = None
    try:
        if layer.kind:
            weight = layer.merged(module.weight, strength).to(module.weight.dtype)
        if any(part in layer.parts for part in BIAS):
            if getattr(module, "bias", None) is None:
                raise RuntimeError(f"{name} has no bias here")
            bias = layer.merged_bias(module.bias, strength).to(module.bias.dtype)
    except RuntimeError as error:  # shapes
        got = f"a LoRA that does not fit this model: {_shown(error)} ({path.name})"
        raise InputError("--lora", EXPECTED, got, REMEDY) from error
    return weight, bias


def read_lora(path: Path) -> dict[str, LoraLayer]:
    """Layers of a LoRA file by the name that the file gives them, without its endings.

    Errors: InputError where a tensor or the metadata is not what a LoRA holds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            everything = list(file.keys())
            names = [n for n in everything if n.endswith(".alpha") or part_of(n)]
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, KeyError, RuntimeError, AttributeError) as error:  # a type that torch lacks
        raise refused(EXPECTED, f"a file that cannot be read ({_shown(error)})", path) from error
    layers: dict[str, LoraLayer] = {}
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            value = tensor.item() if tensor.numel() == 1 else list(tensor.shape)
            layers.setdefault(_layer_name(name.removesuffix(".alpha")), LoraLayer()).alpha = _number(value, name, path)
        elif found := part_of(name):
            layer, part = layers.setdefault(_layer_name(found[0]), LoraLayer()), found[1]
            layer.parts[part] = _part(tensor, name, path, 1 if part in (*BIAS, *PARTS["a difference"], DORA) else 2)
    unknown = [name for name in everything if name not in tensors]
    if unknown:
        log.warning(
            "%s: %d of %d tensors are of no known kind, first %s",
            *(path.name, len(unknown), len(everything), _shown(unknown[0])),
        )
    _apply_peft_alphas(layers, metadata, path)
    return {name: layer for name, layer in layers.items() if layer.parts}


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


def _part(tensor: Tensor, name: str, path: Path, dimensions: int) -> Tensor:
    """A part of a layer, of so many dimensions at least. Errors: InputError."""
    got = f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"
    if tensor.is_floating_point() and tensor.dim() >= dimensions and tensor.numel():
        if bool(tensor.float().isfinite().all()):
            return tensor
        got = "NaN or inf"
    what = "a matrix" if dimensions == 2 else "a vector or matrix"
    raise refused(f"{what} of finite real numbers as {_shown(name)}", got, path)


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
            rank = layer.rank
            if not name.startswith(f"{part}.") or layer.alpha is not None or rank is None:
                continue
            chosen = _exception(exceptions, name.removeprefix(f"{part}."))
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
    """Every name under which a LoRA file may address a layer with a weight of these parts."""
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
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    return [(name, m) for name, m in model.named_modules() if isinstance(m, kinds) and m.weight is not None]
