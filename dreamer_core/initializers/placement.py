"""Upright, centred and of the right size: from the axes of a file to our world (Y up, front +Z)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..frames import rotated
from ..gaussians import Gaussians

Matrix = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

UPRIGHT: dict[str, Matrix] = {
    "+y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "+z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "+x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
}
"""The rotation that turns each axis up. The front of the file is +Z (+y, +x, -x), -Z (-y), -Y (+z) or +Y (-z)."""
UPS = ("auto", *UPRIGHT)
SPLAT_UP = "-y"
"""Up in 3DGS files and in ComfyUI's SPLAT (X right, Y down, Z forward)."""
INSIDE = 0.98
"""Share of the points that a given size holds; the rest may be stray."""


def upright(up: str, yaw: float = 0.0, field: str = "init up") -> Tensor:  # [3, 3] float64
    """Rotation from the axes of a file to our world; the side at azimuth `yaw` (degrees) becomes the front.

    Errors: InputError for another axis than those of `UPRIGHT`, and a yaw that is not finite.
    """
    if up not in UPRIGHT:
        raise InputError(field, f"one of {', '.join(UPS)}", up)
    if not math.isfinite(yaw):
        raise InputError(field.replace("up", "yaw"), "an angle in degrees", yaw)
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    turn = torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]], dtype=torch.float64)
    return turn @ torch.tensor(UPRIGHT[up], dtype=torch.float64)


def oriented(gaussians: Gaussians, up: str = "auto", yaw: float = 0.0, field: str = "init up") -> Gaussians:
    """A splat of our world whose file, in the frame of 3DGS, has `up` up; auto is Y down, which readers assume."""
    assumed = upright(SPLAT_UP)
    rotation = upright(SPLAT_UP if up == "auto" else up, yaw, field) @ assumed.T
    return gaussians if torch.equal(rotation, torch.eye(3, dtype=torch.float64)) else rotated(gaussians, rotation)


def extent(points: Tensor) -> tuple[Tensor, float]:  # points [N, 3] -> centre [3], radius
    """Centre of the box that holds 98 % of the points along each axis, and the radius about it that holds 98 %."""
    n = len(points)
    margin = int((1 - INSIDE) / 2 * (n - 1))
    along = points.sort(dim=0).values
    centre = (along[margin] + along[n - 1 - margin]) / 2
    distances = (points - centre).norm(dim=-1).sort().values
    return centre, float(distances[math.ceil(INSIDE * (n - 1))])


def fitted(gaussians: Gaussians, size: float) -> Gaussians:
    """Moved and scaled so that 98 % of the centres lie in a ball of radius `size`; one point is only moved."""
    centre, radius = extent(gaussians.means.double())
    factor = size / radius if radius > 1e-9 else 1.0
    return replace(
        gaussians,
        means=((gaussians.means.double() - centre) * factor).to(gaussians.means),
        log_scales=gaussians.log_scales + math.log(factor),
    )


def subset(gaussians: Gaussians, limit: int, generator: torch.Generator) -> Gaussians:
    """At most `limit` Gaussians, drawn at random, in their order."""
    if limit >= len(gaussians):
        return gaussians
    return gaussians[torch.randperm(len(gaussians), generator=generator)[:limit].sort().values.to(gaussians.device)]
