"""Anchors: gradients of known size that hold the outline, the surface and the large colours of a splat.

Each is a gradient of a rendered map, limited pixel by pixel:

    g = weight c clamp(d / band, -1, 1)

with d the difference to the same map of the incoming splat, and c the threshold to which the teacher's gradient is
clipped. So weight 1 balances the strongest gradient that the teacher can have once a pixel is `band` off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ..cameras import Cameras
from ..gaussians import Gaussians
from ..rendering import render
from .settings import EditSettings

COVERAGE_BAND = 0.1
COLOUR_BAND = 0.1
DEPTH_BAND = 0.05
"""World units."""
ANCHORS = ("off_silhouette", "off_depth", "off_colours")
"""What the report calls how far the maps are from the reference."""
SOLID = 0.5
"""Coverage from which a pixel has a depth."""


class Maps(Protocol):
    """What a step renders."""

    @property
    def colors(self) -> Tensor: ...  # [B, H, W, 3] in [0, 1]
    @property
    def alphas(self) -> Tensor: ...  # [B, H, W, 1]
    @property
    def depths(self) -> Tensor | None: ...  # [B, H, W, 1] expected depth, world units


@dataclass(frozen=True)
class Reference:
    """What the incoming splat looks like from the cameras of a step; without a graph."""

    colors: Tensor  # [B, H, W, 3] in [0, 1]
    alphas: Tensor  # [B, H, W, 1]
    depths: Tensor | None  # [B, H, W, 1] expected depth, world units
    depth_sums: Tensor | None = None  # [B, H, W, 1] accumulated depth, world units

    @staticmethod
    def of(incoming: Gaussians, cameras: Cameras, backgrounds: Tensor, depth: bool, renderer: str) -> Reference:
        with torch.no_grad():
            output = render(incoming, cameras, backgrounds=backgrounds, depth=depth, backend=renderer)
            depths = output.expected_depths if depth else None
            return Reference(output.colors.clamp(0.0, 1.0), output.alphas, depths, output.depth_sums)


@dataclass(frozen=True)
class AnchorGradients:
    """Gradients of the rendered maps; None where nothing is kept."""

    colors: Tensor | None  # [B, H, W, 3]
    alphas: Tensor | None  # [B, H, W, 1]
    depths: Tensor | None  # [B, H, W, 1]
    off: dict[str, Tensor]
    """By name, how far the maps are from the reference: mean absolute differences []."""


def limited(difference: Tensor, band: float, size: float) -> Tensor:
    """`size` clamp(difference / band, -1, 1), of any shape."""
    return size * (difference / band).clamp(-1.0, 1.0)


def patch_difference(colors: Tensor, reference: Tensor, patches: int) -> Tensor:
    """Differences [B, H, W, 3] of the mean colours of patches, the same for all pixels of a patch."""
    height, width = colors.shape[1:3]
    size = (min(patches, height), min(patches, width))
    means = adaptive_avg_pool2d((colors - reference).permute(0, 3, 1, 2), size)
    return interpolate(means, (height, width), mode="nearest").permute(0, 2, 3, 1)


def anchor_gradients(maps: Maps, reference: Reference, settings: EditSettings, threshold: float) -> AnchorGradients:
    """Gradients that pull rendered maps towards the reference; `threshold` is what the teacher's are clipped to."""
    with torch.no_grad():
        found: dict[str, Tensor | None] = {"colors": None, "alphas": None, "depths": None}
        off: dict[str, Tensor] = {}
        if settings.silhouette > 0:
            difference = maps.alphas - reference.alphas
            off[ANCHORS[0]] = difference.abs().mean()
            found["alphas"] = limited(difference, COVERAGE_BAND, settings.silhouette * threshold)
        if settings.depth > 0 and maps.depths is not None and reference.depths is not None:
            solid = (maps.alphas > SOLID) & (reference.alphas > SOLID)
            difference = torch.where(solid, maps.depths - reference.depths, 0.0)
            off[ANCHORS[1]] = difference.abs().sum() / solid.sum().clamp_min(1)
            found["depths"] = limited(difference, DEPTH_BAND, settings.depth * threshold)
        if settings.colours > 0:
            difference = patch_difference(maps.colors, reference.colors, settings.patches)
            off[ANCHORS[2]] = difference.abs().mean()
            found["colors"] = limited(difference, COLOUR_BAND, settings.colours * threshold)
        return AnchorGradients(**found, off=off)
