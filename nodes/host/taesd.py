"""TAESD's encoder at any width (the architecture is github.com/madebyollin/taesd, MIT), and padding to width 64.

ComfyUI knows TAESD only 64 channels wide. There is no normalisation in it, so channels that are zero stay zero: a
narrower model padded with zeros gives the same numbers, and the zeros can be taken off again where speed counts.
"""

from __future__ import annotations

import torch
from comfy.ops import disable_weight_init
from comfy.taesd.taesd import Block, conv
from torch import Tensor, nn

WIDTH = 64
"""Of every layer in ComfyUI's TAESD."""


def tiny_encoder(weights: dict[str, Tensor]) -> nn.Sequential:
    """An encoder with the weights of ComfyUI's `taesd_encoder`, as narrow as its zeros allow."""
    width = used_width(weights)
    latents = weights["14.weight"].shape[0]
    layers: list[nn.Module] = [conv(3, width), Block(width, width)]
    for _ in range(3):
        layers += [conv(width, width, stride=2, bias=False), *(Block(width, width) for _ in range(3))]
    encoder = nn.Sequential(*layers, disable_weight_init.Conv2d(width, latents, 3, padding=1))
    shapes = {k: v.shape for k, v in encoder.state_dict().items()}
    encoder.load_state_dict({k: resized(v, shapes[k]) for k, v in weights.items()})
    return encoder


def used_width(weights: dict[str, Tensor]) -> int:
    """The number of leading channels outside which every layer puts out zero."""
    used = 1
    for key, value in weights.items():
        if key.startswith("14."):  # latents, not channels
            continue
        alive = value.flatten(1).abs().amax(1) if value.ndim > 1 else value.abs()
        nonzero = alive.nonzero()
        used = max(used, int(nonzero.max()) + 1 if len(nonzero) else 0)
    return used


def resized(value: Tensor, shape: torch.Size) -> Tensor:
    """`value` cut, or padded with zeros, at the end of its first two axes."""
    out = value.new_zeros(shape)
    corner = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, shape))
    out[corner] = value[corner]
    return out
