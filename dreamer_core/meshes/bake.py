"""The texture of a mesh from pictures of the splat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .looks import SOLID, Looks
from .raster import rasterize_triangles

FACING = 0.1
"""Cosine below which a picture shows a surface too slantwise to be used."""
SHARPNESS = 6
"""Power of the cosine that a picture counts by: the one that looks straight at a place decides."""

SPOTS = (
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (1.0, 1.0, 0.0),
    (0.0, 1.0, 1.0),
    (1.0, 0.0, 1.0),
    (1.0, 1.0, 1.0),
)
"""Corners, middles of the edges and middle of a triangle."""


@dataclass(frozen=True)
class Baked:
    """A texture, and how much of it is known."""

    texture: NDArray[np.uint8]  # [pixels, pixels, 3] display values
    seen: float
    """Share of the charts' texels that a picture sees; the others have their neighbours' colours."""
    covered: float
    """Share of the texture that lies in charts."""


def bake(
    places: Tensor,  # [V, 3] world units
    normals: Tensor,  # [V, 3] unit length
    uv: Tensor,  # [V, 2] in [0, 1]
    faces: Tensor,  # [F, 3]
    looks: Looks,
    tolerance: float,
    pixels: int,
) -> Baked:
    """The splat's colours on a mesh.

    Each texel is the mean of the pictures that see it, weighted by how straight they look at it; `tolerance` is how
    far, in world units, it may lie behind what they see. Texels that no picture sees take the nearest one's colour in
    space; those outside all charts the nearest one's in the texture.
    """
    flat = torch.cat([uv[faces] * pixels, uv.new_zeros(len(faces), 3, 1)], -1)
    triangle, weights = _with_slivers(flat, *rasterize_triangles(flat, pixels, pixels))
    rows = (triangle >= 0).nonzero()
    which, share = triangle[rows[:, 0], rows[:, 1]], weights[rows[:, 0], rows[:, 1], :, None]
    points = (places[faces[which]] * share).sum(1)
    facing = torch.nn.functional.normalize((normals[faces[which]] * share).sum(1), dim=-1)
    colors, seen = _blend(points, facing, looks, tolerance)
    if bool(seen.any()):
        colors[~seen] = colors[seen][_nearest(points[seen], points[~seen])]
    picture = torch.zeros(pixels, pixels, 3, device=colors.device)
    picture[rows[:, 0], rows[:, 1]] = colors
    filled = _spread(picture.cpu().numpy(), (triangle >= 0).cpu().numpy())
    texture = (filled.clip(0, 1) * 255).round().astype(np.uint8)
    return Baked(texture, float(seen.float().mean()) if len(seen) else 0.0, float((triangle >= 0).float().mean()))


def _with_slivers(flat: Tensor, triangle: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What `rasterize_triangles` found, and the texels around triangles that are too thin to cover a texel's centre.

    A chart of such triangles would take its colour from the next chart.
    """
    pixels = len(triangle)
    shares = torch.tensor(SPOTS, device=flat.device) / torch.tensor(SPOTS, device=flat.device).sum(-1, keepdim=True)
    spots = (torch.einsum("sk,fkc->fsc", shares, flat[..., :2]) - 0.5).floor().long()
    corners = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=flat.device)
    x, y = (spots[:, :, None] + corners).clamp(0, pixels - 1).unbind(-1)  # [F, S, 4]
    empty = triangle[y, x] < 0
    face = torch.arange(len(flat), device=flat.device)[:, None, None].expand_as(x)[empty]
    share = shares[None, :, None].expand(len(flat), -1, 4, -1)[empty]
    triangle[y[empty], x[empty]], weights[y[empty], x[empty]] = face, share
    return triangle, weights


def _blend(points: Tensor, normals: Tensor, looks: Looks, tolerance: float) -> tuple[Tensor, Tensor]:
    """Colours [N, 3] and whether any picture sees the point [N]."""
    total, weight = torch.zeros_like(points), points.new_zeros(len(points))
    for view in range(len(looks)):
        viewmat = looks.cameras.viewmats[view].to(points)
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
        cosine = (normals * torch.nn.functional.normalize(eye - points, dim=-1)).sum(-1)
        candidates = (cosine > FACING).nonzero()[:, 0]
        places, z = looks.project(points[candidates], view)
        alpha, depth, *color = looks.sample(places, view)
        shown = (alpha > SOLID) & (z < depth / alpha.clamp_min(1e-6) + tolerance)
        chosen = candidates[shown]
        share = cosine[chosen] ** SHARPNESS * alpha[shown]
        total[chosen] += share[:, None] * (torch.stack(color, -1) / alpha[:, None].clamp_min(1e-6))[shown].clamp(0, 1)
        weight[chosen] += share
    return total / weight.clamp_min(1e-12)[:, None], weight > 0


def _nearest(known: Tensor, wanted: Tensor) -> Tensor:
    """Index [M] of the nearest of `known` [N, 3] to each of `wanted` [M, 3]."""
    from scipy.spatial import cKDTree

    _, index = cKDTree(known.cpu().numpy()).query(wanted.cpu().numpy(), workers=-1)
    return torch.as_tensor(index, dtype=torch.long, device=known.device)


def _spread(picture: NDArray[np.float32], filled: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Every pixel outside the charts takes the colour of the nearest one inside: no seam shows a foreign colour."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    found: NDArray[np.float32] = picture[nearest[0], nearest[1]]
    return found
