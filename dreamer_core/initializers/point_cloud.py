"""From coloured points to Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..gaussians import Gaussians
from .placement import extent
from .shapes import MAX_SCALE, check_numbers, from_points, neighbour_distances

JITTER = 0.5
"""Standard deviation of a copy's offset, as a share of the gap to the nearest neighbours; our choice."""
FITTED_SIZE = 0.8
"""Radius that points are fitted to where the user names none; the finished object should fit a ball of radius 1."""


@dataclass(frozen=True)
class PointCloud:
    """Points in any unit, with display colours in [0, 1] or none."""

    points: Tensor  # [N, 3] float64
    rgb: Tensor | None = None  # [N, 3]

    def __len__(self) -> int:
        return len(self.points)

    def turned(self, rotation: Tensor) -> PointCloud:  # [3, 3]
        """The same cloud turned about the origin."""
        return PointCloud(self.points @ rotation.to(self.points).T, self.rgb)

    def chosen(self, index: Tensor) -> PointCloud:
        """The points at these indices, or where a mask is true."""
        return PointCloud(self.points[index], None if self.rgb is None else self.rgb[index])


def gaussians_from_cloud(
    cloud: PointCloud,
    count: int,
    generator: torch.Generator,
    *,
    size: float = FITTED_SIZE,
    opacity: float = 0.1,
    field: str = "init",
) -> Gaussians:
    """`count` isotropic Gaussians on and around the points, 98 % of them in a ball of radius `size`.

    More points than that are drawn from at random; fewer get copies with random offsets (published: 20 per point of
    4,096). Points with NaN or inf are left out. The published opacity is 0.1, the scale that of `from_points`.
    Errors: InputError for a bad count, size or opacity, and for fewer than 4 points or points in one place.
    """
    check_numbers(count=count, size=size, opacity=opacity)
    cloud = cloud.chosen(torch.isfinite(cloud.points).all(dim=-1))
    if len(cloud) < 4:
        raise InputError(field, "at least 4 points with finite coordinates", f"{len(cloud)}")
    if len(cloud) > count:
        cloud = cloud.chosen(torch.randperm(len(cloud), generator=generator)[:count].sort().values)
    points = _fit(cloud.points.double(), size, field)
    source = torch.arange(count) % len(points)
    if count > len(points):
        spacing = neighbour_distances(points).clamp_max(MAX_SCALE)[source, None]
        offsets = JITTER * spacing * torch.randn(count, 3, generator=generator, dtype=points.dtype)
        offsets[: len(points)] = 0
        points = _fit(points[source] + offsets, size, field)
    rgb = None if cloud.rgb is None else cloud.rgb.float().clamp(0, 1)[source]
    return from_points(points.float(), rgb, opacity=opacity)


def _fit(points: Tensor, size: float, field: str) -> Tensor:
    centre, radius = extent(points)
    spread = float((points - centre).abs().amax())
    if not math.isfinite(radius) or not math.isfinite(spread):
        raise InputError(field, "coordinates of a sensible size", "coordinates that overflow")
    if radius <= 1e-12 * max(1.0, float(points.abs().amax())):
        raise InputError(field, "points in several places", f"{len(points)} points in one place")
    return (points - centre) * (size / radius)
