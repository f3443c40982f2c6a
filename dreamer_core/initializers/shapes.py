"""Simple solids of grey Gaussians, and Gaussians around given points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from ..gaussians import Gaussians

SHAPES = ("sphere", "box", "ball")
"""`sphere` and `box` fill their volume evenly; `ball` is a normal distribution, densest in the middle."""
MIN_SCALE, MAX_SCALE = 1e-4, 0.2
"""Bounds of an initial scale in world units: points that coincide have no gap, stray ones a huge one."""


def neighbour_distances(points: Tensor, neighbours: int = 3) -> Tensor:
    """Root mean square distance [N] of each point [N, 3] to its nearest neighbours (3DGS's initial scale)."""
    n = points.shape[0]
    k = min(neighbours, n - 1)
    if k < 1:
        return points.new_full((n,), 0.1)
    from scipy.spatial import cKDTree  # brought by ComfyUI

    array = points.detach().cpu().double().numpy()
    distances = cKDTree(array).query(array, k=k + 1, workers=-1)[0][:, 1:]
    return torch.from_numpy((distances**2).mean(axis=1) ** 0.5).to(points).clamp_min(1e-7)


def from_points(
    points: Tensor,  # [N, 3]
    rgb: Tensor | None = None,  # [N, 3] display colours; None is grey
    *,
    opacity: float = 0.1,
    max_scale: float = MAX_SCALE,
) -> Gaussians:
    """Isotropic Gaussians as large as the gap to their neighbours; the published opacity is 0.1."""
    n = points.shape[0]
    scales = neighbour_distances(points).clamp(MIN_SCALE, max_scale)[:, None].expand(n, 3)
    return Gaussians.from_activated(
        means=points.float().clone(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).to(points.device).repeat(n, 1),
        scales=scales.float().clone(),
        opacities=torch.full((n,), opacity, device=points.device),
        rgb=torch.full((n, 3), 0.5, device=points.device) if rgb is None else rgb.float(),
    )


def check_numbers(*, count: int, size: float, opacity: float) -> None:
    """Errors: InputError for fewer than 4 Gaussians, a size of 0 or less, an opacity outside (0, 1)."""
    if count < 4:
        raise InputError("count", "at least 4 Gaussians", count)
    if not 0 < size < math.inf:
        raise InputError("init size", "a length above 0", size)
    if not 0 < opacity < 1:
        raise InputError("init opacity", "a number above 0 and below 1", opacity)


def initial_shape(
    shape: str, count: int, generator: torch.Generator, *, size: float = 0.6, opacity: float = 0.1
) -> Gaussians:
    """`count` grey Gaussians in a sphere of radius `size`, a cube of half side `size`, or a normal ball.

    Errors: InputError for an unknown shape, a count below 4, a size of 0 or less, an opacity outside (0, 1).
    """
    if shape not in SHAPES:
        raise InputError("init", f"one of {', '.join(SHAPES)} or a file", shape)
    check_numbers(count=count, size=size, opacity=opacity)
    if shape == "box":
        points = size * (2 * torch.rand(count, 3, generator=generator) - 1)
    elif shape == "ball":
        points = size / 2 * torch.randn(count, 3, generator=generator)
    else:
        direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
        points = size * torch.rand(count, 1, generator=generator) ** (1 / 3) * direction
    return from_points(points, opacity=opacity)
