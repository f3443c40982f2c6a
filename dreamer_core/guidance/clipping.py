"""Pixel-by-pixel gradient clipping (PGC, Pan et al. 2310.12474; Dreamer XL 2405.11252, sec. 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError

ClipMode = Literal["off", "pixel", "norm"]
DepthClipMode = Literal["off", "per_pixel", "global"]


@dataclass(frozen=True)
class ClipConfig:
    """How the gradient that reaches the rendered images is limited."""

    mode: ClipMode = "pixel"
    """`pixel`: the largest channel of a pixel is brought to the threshold (published); `norm`: its length is."""
    threshold: float = 0.05
    """c, on the gradient of colours in [0, 1]."""
    ramp_from: float | None = None
    """Threshold at step 0 of a linear ramp towards `threshold`; None keeps it constant."""
    ramp_steps: int = 0
    """Length of the ramp in steps."""
    depth_mode: DepthClipMode = "per_pixel"
    """`per_pixel` is the paper's text; `global` scales the whole map by its one smallest factor, as its code does."""
    depth_factor: float = 0.01
    """The depth threshold is this times the mean scale of the Gaussians."""

    def __post_init__(self) -> None:
        if self.mode not in ("off", "pixel", "norm"):
            raise InputError("clip.mode", "off, pixel or norm", self.mode)
        if self.depth_mode not in ("off", "per_pixel", "global"):
            raise InputError("clip.depth_mode", "off, per_pixel or global", self.depth_mode)
        if not self.threshold > 0:
            raise InputError("clip.threshold", "a number above 0", self.threshold, "use off to switch it off")
        if not self.depth_factor > 0:
            raise InputError("clip.depth_factor", "a number above 0", self.depth_factor)
        if self.ramp_from is not None and not self.ramp_from > 0:
            raise InputError("clip.ramp_from", "a number above 0", self.ramp_from)
        if self.ramp_steps < 0:
            raise InputError("clip.ramp_steps", "0 or more steps", self.ramp_steps)

    def threshold_at(self, step: int) -> float:
        """c in force at `step`."""
        if self.ramp_from is None or self.ramp_steps <= 0:
            return self.threshold
        share = min(step / self.ramp_steps, 1.0)
        return self.ramp_from + (self.threshold - self.ramp_from) * share


def clip_pixel_gradient(gradient: Tensor, threshold: float, mode: ClipMode = "pixel") -> tuple[Tensor, Tensor]:
    """Gradient [..., C] with every pixel scaled to the threshold, its direction kept, and the clipped share [].

    `pixel`: g <- g min_c min(1, threshold / |g_c|). `norm`: g <- g min(1, threshold / |g|). The share is a tensor so
    that a GPU need not wait for it.
    """
    if mode == "off":
        return gradient, gradient.new_zeros(())
    if mode == "norm":
        size = gradient.norm(dim=-1, keepdim=True)
    else:
        size = gradient.abs().amax(dim=-1, keepdim=True)
    clipped = size > threshold
    scale = torch.where(clipped, threshold / size.clamp_min(torch.finfo(gradient.dtype).tiny), 1.0)
    return gradient * scale, clipped.to(gradient.dtype).mean()


def clip_depth_gradient(
    gradient: Tensor, threshold: Tensor | float, mode: DepthClipMode = "per_pixel"
) -> tuple[Tensor, Tensor]:
    """Gradient of depth maps of any shape limited to `threshold`, and the share of elements above it."""
    size = gradient.abs()
    share = (size > threshold).to(gradient.dtype).mean()
    if mode == "off":
        return gradient, gradient.new_zeros(())
    if mode == "per_pixel":
        return torch.minimum(size, torch.as_tensor(threshold).to(size)) * gradient.sign(), share
    scale = (threshold / size.max().clamp_min(torch.finfo(gradient.dtype).tiny)).clamp(max=1.0)
    return gradient * scale, share
