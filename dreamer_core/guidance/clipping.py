"""Pixel-by-pixel gradient clipping (PGC, Pan et al. 2310.12474; Dreamer XL 2405.11252, sec. 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from ..settings import Knob, Settings

ClipMode = Literal["off", "pixel", "norm"]
DepthClipMode = Literal["off", "per_pixel", "global"]


@dataclass(frozen=True)
class ClipConfig(Settings):
    """How the gradient that reaches the rendered images is limited."""

    group: ClassVar[str] = "clip"

    mode: Annotated[
        ClipMode,
        Knob("pixel: the largest channel of a pixel is limited (published). norm: its length is. off: nothing is."),
    ] = "pixel"
    threshold: Annotated[
        float,
        Knob(
            "Largest gradient of a pixel, per unit of colour. Published: 0.05. Watch the clipped share.",
            1e-4, 100.0, 0.005,
        ),
    ] = 0.05  # fmt: skip
    ramp_from: Annotated[
        float,
        Knob("Threshold at step 0 of a linear ramp, per unit of colour. 0: no ramp.", 0.0, 100.0, 0.005, advanced=True),
    ] = 0.0
    ramp_steps: Annotated[int, Knob("Length of the ramp in steps. 0: no ramp.", 0, 100_000, 1, advanced=True)] = 0
    depth_mode: Annotated[
        DepthClipMode,
        Knob(
            "On depth steps. global: the map is scaled by its one smallest factor (released code). per_pixel: every "
            "pixel by its own (the paper's text). off: nothing is limited.",
            advanced=True,
        ),
    ] = "global"
    depth_factor: Annotated[
        float,
        Knob(
            "The depth threshold is this times the mean scale of the Gaussians. Published: 0.01.",
            1e-5, 10.0, 0.001, advanced=True,
        ),
    ] = 0.01  # fmt: skip

    def threshold_at(self, step: int) -> float:
        """c in force at `step`."""
        if self.ramp_from <= 0 or self.ramp_steps <= 0:
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
    gradient: Tensor, threshold: Tensor | float, mode: DepthClipMode = "global"
) -> tuple[Tensor, Tensor]:
    """Gradient of depth maps of any shape limited to `threshold`, and the share of elements above it."""
    if mode == "off":
        return gradient, gradient.new_zeros(())
    size = gradient.abs()
    share = (size > threshold).to(gradient.dtype).mean()
    if mode == "per_pixel":
        return torch.minimum(size, torch.as_tensor(threshold).to(size)) * gradient.sign(), share
    scale = (threshold / size.max().clamp_min(torch.finfo(gradient.dtype).tiny)).clamp(max=1.0)
    return gradient * scale, share
