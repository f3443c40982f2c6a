"""Renderings as ComfyUI's IMAGE and MASK."""

from __future__ import annotations

from collections.abc import Iterator

import comfy.model_management as mm
import torch
from PIL import Image
from torch import Tensor

from ...dreamer_core.cameras import Cameras
from ...dreamer_core.errors import InputError
from ...dreamer_core.gaussians import Gaussians
from ...dreamer_core.rendering import RenderOutput, render


def render_views(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, *, depth: bool = False, backend: str = "auto"
) -> Iterator[RenderOutput]:
    """One view after another without gradients, so that memory stays small and cancelling stays quick."""
    for i in range(len(cameras)):
        mm.throw_exception_if_processing_interrupted()
        one = Cameras(
            cameras.viewmats[i : i + 1],
            cameras.Ks[i : i + 1],
            cameras.width,
            cameras.height,
            cameras.azimuth[i : i + 1],
            cameras.elevation[i : i + 1],
            cameras.fov[i : i + 1],
        )
        with torch.inference_mode(False), torch.no_grad():
            output = render(gaussians.detach(), one, backgrounds=background.clone()[None], depth=depth, backend=backend)
        yield output


def views_image(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, backend: str = "auto"
) -> Tensor:  # [F, H, W, 3]
    """Pictures of all cameras, on the device where ComfyUI keeps results."""
    parts = [out.colors.clamp(0, 1).cpu() for out in render_views(gaussians, cameras, background, backend=backend)]
    return torch.cat(parts).to(mm.intermediate_device())


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
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().cpu().numpy())


def contact_sheet(images: Tensor, columns: int) -> Tensor:  # [H', W', 3]
    """Pictures [F, H, W, 3] side by side, row after row; unused places are white."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = images.new_ones(rows * height, columns * width, 3)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return sheet


def parse_color(text: str, field: str = "background") -> Tensor:  # [3]
    """A colour "#rrggbb". Errors: InputError."""
    digits = text.strip().removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError(digits)
        return torch.tensor([int(digits[i : i + 2], 16) / 255.0 for i in (0, 2, 4)])
    except ValueError as error:
        raise InputError(field, "a colour such as #ffffff", repr(text)) from error
