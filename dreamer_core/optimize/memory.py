"""How much memory a step may take: what to keep, what to compute twice. Every choice gives the same gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..errors import InputError

MemoryMode = Literal["auto", "low", "high"]
MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)

ENCODER_BYTES_PER_PIXEL = 12_200
"""What SDXL's VAE encoder keeps for its backward pass in float32, per pixel; tests/core/test_memory.py counts it."""
CHECKPOINTED_BYTES_PER_PIXEL = 5_900
"""The same with every residual block checkpointed, the largest block's recomputation included."""
UNET_BYTES_PER_LATENT = 20_000
"""Working memory of SDXL's UNet in half precision, per latent pixel of one sample: twice what its activations take
(`python -m benchmarks.memory` counts 10,080), for the workspaces and the rounding of a GPU's libraries."""
HEADROOM = 0.8
"""Share of the free memory that a plan may count on."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a step does about memory."""

    recompute_encoder: bool
    """Encode without a graph, run the UNet, encode again view by view with gradient."""
    checkpoint_encoder: bool
    """Keep only the inputs of the encoder's blocks and recompute the rest in the backward pass."""
    max_batch: int | None
    """UNet samples per call; None runs all at once."""


def free_bytes(device: torch.device) -> int:
    """Memory that a run on `device` can still take: of the GPU, else of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def used_bytes(device: torch.device) -> int:
    """Peak of the memory allocated on a GPU so far, or what this process holds in the machine's memory now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)


def plan_memory(
    mode: MemoryMode,
    free: int,
    *,
    resolution: int,
    views: int,
    encoder_bytes_per_pixel: float = ENCODER_BYTES_PER_PIXEL,
) -> MemoryPlan:
    """The cheapest plan in time whose estimate fits into `free` bytes.

    `high` keeps everything and runs the UNet once for all samples; `low` keeps next to nothing. `auto` takes the first
    of these that fits: all views' activations; one view's; one view's with checkpointed blocks; `low`.
    `encoder_bytes_per_pixel` is what the VAE encoder saves; a smaller VAE than SDXL's saves less.
    """
    if mode not in MODES:
        raise InputError("memory", "auto, low or high", mode)
    low = MemoryPlan(recompute_encoder=True, checkpoint_encoder=True, max_batch=2)
    high = MemoryPlan(recompute_encoder=False, checkpoint_encoder=False, max_batch=None)
    if mode != "auto":
        return low if mode == "low" else high
    pixels = resolution**2
    encoder = encoder_bytes_per_pixel * pixels
    checkpointed = encoder * CHECKPOINTED_BYTES_PER_PIXEL / ENCODER_BYTES_PER_PIXEL
    unet = UNET_BYTES_PER_LATENT * (pixels / 64) * 3 * views
    room = HEADROOM * free
    if views * encoder + unet <= room:
        return high
    for per_view, checkpoint in ((encoder, False), (checkpointed, True)):
        if max(per_view, unet) <= room:
            return MemoryPlan(recompute_encoder=True, checkpoint_encoder=checkpoint, max_batch=None)
    return low
