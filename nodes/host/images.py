"""Renderings as ComfyUI's IMAGE and MASK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import comfy.model_management as mm
import torch
from PIL import Image
from torch import Tensor

from ...dreamer_core.cameras import Cameras
from ...dreamer_core.errors import InputError
from ...dreamer_core.gaussians import Gaussians
from ...dreamer_core.media import render_views, to_uint8

View = TypeVar("View")


def cancellable(views: Iterator[View]) -> Iterator[View]:
    """Views as they are made, until the user cancels."""
    mm.throw_exception_if_processing_interrupted()
    for view in views:
        yield view
        mm.throw_exception_if_processing_interrupted()


def views_image(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, backend: str = "auto"
) -> Tensor:  # [F, H, W, 3]
    """Pictures of all cameras, on the device where ComfyUI keeps results."""
    return torch.stack(list(cancellable(render_views(gaussians, cameras, background, backend)))).to(
        mm.intermediate_device()
    )


def depth_image(depths: Tensor, alphas: Tensor) -> Tensor:  # [F, H, W, 3]
    """Nearest white, farthest grey, nothing black; one scale for all views, so that they can be compared.

    `depths` [F, H, W, 1] are mean depths along the rays in world units, `alphas` [F, H, W, 1] coverages.
    """
    solid = alphas > 0.5
    if not bool(solid.any()):
        return torch.zeros_like(depths).expand(*depths.shape[:-1], 3).contiguous()
    near, far = depths[solid].min(), depths[solid].max()
    closeness = 1.0 - 0.9 * (depths - near) / (far - near).clamp_min(1e-6)
    return torch.where(solid, closeness.clamp(0, 1), 0.0).expand(*depths.shape[:-1], 3).contiguous()


def to_pil(image: Tensor) -> Image.Image:
    """A picture [H, W, 3] in [0, 1]."""
    return Image.fromarray(to_uint8(image))


def parse_color(text: str, field: str = "background") -> Tensor:  # [3]
    """A colour "#rrggbb". Errors: InputError."""
    digits = text.strip().removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError(digits)
        return torch.tensor([int(digits[i : i + 2], 16) / 255.0 for i in (0, 2, 4)])
    except ValueError as error:
        raise InputError(field, "a colour such as #ffffff", repr(text)) from error
