"""The turntable that measures of pictures look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import turntable
from ..gaussians import Gaussians
from ..media import render_outputs

VIEWS, RESOLUTION, RADIUS, FOV = 120, 512, 3.5, 0.55


@dataclass(frozen=True)
class Views:
    """Pictures all around an object on white, evenly spaced; the first is the front, the next is 360 / V degrees on."""

    images: Tensor  # [V, H, W, 3] in [0, 1]
    coverage: Tensor  # [V, H, W] in [0, 1]
    protocol: str = "pictures from elsewhere"


def render_turntable(gaussians: Gaussians, renderer: str = "auto", views: int = VIEWS, size: int = RESOLUTION) -> Views:
    """The protocol's pictures: polar angle 90 degrees, radius 3.5, field of view 0.55 rad, white."""
    cameras = turntable(views, size, radius=RADIUS, fov=FOV)
    images, coverage = torch.empty(views, size, size, 3), torch.empty(views, size, size)
    for i, out in enumerate(render_outputs(gaussians, cameras, (1.0, 1.0, 1.0), renderer)):
        images[i], coverage[i] = out.colors[0].clamp(0, 1).cpu(), out.alphas[0, ..., 0].clamp(0, 1).cpu()
    words = f"{views} views of {size} px, polar 90 degrees, radius {RADIUS}, fov {FOV} rad, white"
    return Views(images, coverage, words)
