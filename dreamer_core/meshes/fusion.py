"""Fuses rendered depths into a signed distance on a grid (Curless and Levoy, SIGGRAPH 1996).

A point that no camera sees is inside: space is carved from outside, so the surface has no border, hence no holes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .looks import SOLID, Extent, Looks

COARSE = 4
"""Cells of the first pass are so many times larger; only those near a surface are looked at again."""
BAND = 3.0
"""Distances are cut off at so many cells."""
CHUNK = 1 << 19
"""Points that are looked up at once."""


@dataclass(frozen=True)
class Grid:
    """Places of a volume: value (i, j, k) lies at `origin + cell * (i, j, k)`."""

    origin: Tensor  # [3]
    cell: float
    shape: tuple[int, int, int]

    def points(self, index: Tensor) -> Tensor:
        """World positions [N, 3] of flat indices [N]."""
        _, ny, nz = self.shape
        ijk = torch.stack([index // (ny * nz), index // nz % ny, index % nz], -1)
        return self.origin + self.cell * ijk.to(self.origin)

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]


def grid_around(place: Extent, cells: int) -> Grid:
    """A grid with `cells` cells along the longest side of the box, and an empty border."""
    side = place.high - place.low
    cell = float(side.max()) / cells
    border = BAND + 1
    # A whole number of coarse cells along every axis.
    counts = [COARSE * -(-int(torch.ceil(s / cell + 2 * border)) // COARSE) for s in side]
    origin = place.centre - cell * (torch.tensor(counts).to(side) - 1) / 2
    return Grid(origin, cell, (counts[0], counts[1], counts[2]))


def distances(points: Tensor, looks: Looks, band: float) -> Tensor:
    """Signed distances [N] of points [N, 3] in units of `band`, cut to [-1, 1]; inside is negative.

    The mean over the views that see the point, or that look at most one band past the surface before it.
    """
    total, count = points.new_zeros(len(points)), points.new_zeros(len(points))
    for view in range(len(looks)):
        places, z = looks.project(points, view)
        alpha, depth = looks.sample(places, view, 2)
        before = torch.where(alpha < SOLID, 1.0, (depth / alpha.clamp_min(1e-6) - z) / band)
        seen = before > -1
        total += torch.where(seen, before.clamp_max(1), 0.0)
        count += seen
    return torch.where(count > 0, total / count.clamp_min(1), -1.0)


def fuse(looks: Looks, grid: Grid) -> Tensor:
    """The signed distance [X, Y, Z] at the grid's places, in cells, cut off at `BAND`."""
    coarse_shape = tuple(n // COARSE for n in grid.shape)
    middle = grid.origin + grid.cell * (COARSE - 1) / 2
    coarse_grid = Grid(middle, COARSE * grid.cell, (coarse_shape[0], coarse_shape[1], coarse_shape[2]))
    every = torch.arange(coarse_grid.size, device=middle.device)
    # A band of a coarse cell's diagonal and of the fine band: whatever is cut off is far from any surface.
    reach = (COARSE * 3**0.5 / 2 + BAND) * grid.cell
    rough = _look_up(coarse_grid, every, looks, reach).reshape(coarse_shape)
    field = rough.sign()
    for axis in range(3):
        field = field.repeat_interleave(COARSE, axis)
        rough = rough.repeat_interleave(COARSE, axis)
    near = (rough.abs() < 1).reshape(-1).nonzero()[:, 0]
    flat = field.reshape(-1).contiguous()
    flat[near] = _look_up(grid, near, looks, BAND * grid.cell)
    return BAND * flat.reshape(grid.shape)


def _look_up(grid: Grid, index: Tensor, looks: Looks, band: float) -> Tensor:
    return torch.cat([distances(grid.points(part), looks, band) for part in index.split(CHUNK)])
