"""Compares a single file with what its inferred architecture needs, before gigabytes are loaded.

diffusers fills what a file lacks with noise or fails with an unrelated message; here every tensor is accounted for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..safetensors_header import Header
from .original_layout import original_text, original_text_2, original_unet, original_vae

Shape = tuple[int, ...]


def expected_shapes(part: str, config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names (original layout, without prefix) and shapes of a part's tensors, from a model without memory."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        if part == "unet":
            state = UNet2DConditionModel.from_config(config).state_dict()
            attends = [block.startswith("CrossAttn") for block in config["up_block_types"]]
            named = original_unet(state, config["layers_per_block"], attends)
        elif part == "vae":
            named = original_vae(AutoencoderKL.from_config(config).state_dict(), len(config["block_out_channels"]))
        elif part == "text_encoder":
            named = original_text(CLIPTextModel(CLIPTextConfig(**config)).state_dict())
        else:
            named = original_text_2(CLIPTextModelWithProjection(CLIPTextConfig(**config)).state_dict())
    return {name: tuple(value.shape) for name, value in named.items()}


def shortcomings(header: Header, part: str, config: Mapping[str, Any], prefix: str) -> str | None:
    """What keeps the file's tensors from being this part, in words; None where they are complete."""
    have = header.stripped(prefix).shapes
    need = expected_shapes(part, config)
    missing = [name for name in need if name not in have]
    if missing:
        return f"whose {part} lacks {len(missing)} tensors, first {prefix}{missing[0]}"
    for name, shape in need.items():
        if _squeezed(shape) != _squeezed(have[name]):
            return f"whose {part} has {list(have[name])} where SDXL has {list(shape)}: {prefix}{name}"
    extra = [name for name in have if name not in need] if part == "unet" else []
    if extra:
        return f"whose {part} has {len(extra)} tensors too many, first {prefix}{extra[0]}"
    return None


def _squeezed(shape: Shape) -> Shape:
    """A linear layer and a 1x1 convolution hold the same numbers; files differ in which they write."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
