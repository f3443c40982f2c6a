"""Which triangle covers which pixel, in plain torch: for texture atlases and for pictures of a mesh."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 22
"""Pairs of a triangle and a pixel that are tested at once."""
EDGE = -1e-5
"""Barycentric coordinates down to here count as inside, so that no pixel between two triangles is missed."""


def rasterize_triangles(corners: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Index [H, W] of the nearest triangle at each pixel centre, -1 where there is none, and its weights [H, W, 3].

    `corners` [F, 3, 3]: x and y in pixels, and a depth that is interpolated linearly in the picture.
    """
    device = corners.device
    low = (corners[..., :2].amin(1) - 0.5).ceil().clamp_min(0).long()
    limit = torch.tensor([width, height], device=device) - 1
    high = torch.minimum((corners[..., :2].amax(1) - 0.5).floor().long(), limit)
    spans = (high - low + 1).clamp_min(0)
    counts = spans[:, 0] * spans[:, 1]
    nearest = torch.full((height * width,), torch.inf, device=device)
    triangle = torch.full((height * width,), -1, dtype=torch.long, device=device)
    weights = torch.zeros(height * width, 3, device=device)
    ends = counts.cumsum(0)
    first = 0
    while first < len(corners):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, before + CHUNK, right=True)))
        part = torch.arange(first, last, device=device)
        which = part.repeat_interleave(counts[part])
        local = torch.arange(len(which), device=device) - ((ends - counts)[which] - before)
        x = low[which, 0] + local % spans[which, 0].clamp_min(1)
        y = low[which, 1] + local // spans[which, 0].clamp_min(1)
        found = _barycentric(corners[which, :, :2], torch.stack([x, y], -1) + 0.5)
        inside = (found >= EDGE).all(-1)
        which, found, pixel = which[inside], found[inside], (y * width + x)[inside]
        depth = (found * corners[which, :, 2]).sum(-1)
        nearest.scatter_reduce_(0, pixel, depth, "amin")
        won = depth <= nearest[pixel]
        triangle[pixel[won]], weights[pixel[won]] = which[won], found[won]
        first = last
    return triangle.reshape(height, width), weights.reshape(height, width, 3)


def _barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """Weights [N, 3] of points [N, 2] in triangles [N, 3, 2]; triangles without an area have none."""
    a, b, c = corners.unbind(1)

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    area = cross(b - a, c - a)
    of_b, of_c = cross(points - a, c - a) / area, cross(b - a, points - a) / area
    return torch.nan_to_num(torch.stack([1 - of_b - of_c, of_b, of_c], -1), -1.0, -1.0, -1.0)
