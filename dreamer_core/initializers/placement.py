"""Upright, centred and of the right size: from the axes of a file to our world (Y up, front +Z)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..gaussians import Gaussians
from ..rendering.spherical_harmonics import sh_bases

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


def rotated(gaussians: Gaussians, rotation: Tensor) -> Gaussians:  # rotation [3, 3]
    """The object turned about the origin: centres, axes and view-dependent colours."""
    from scipy.spatial.transform import Rotation  # brought by ComfyUI

    r = rotation.to(gaussians.means)
    x, y, z, w = Rotation.from_matrix(rotation.cpu().double().numpy()).as_quat().tolist()
    a, b, c, d = gaussians.quats.unbind(-1)
    quats = torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        dim=-1,
    )
    shN = gaussians.shN
    if shN.shape[1]:
        shN = torch.einsum("jk,nkc->njc", _sh_rotation(gaussians.sh_degree, rotation).to(shN), shN)
    return replace(gaussians, means=gaussians.means @ r.T, quats=quats, shN=shN)


def _sh_rotation(degree: int, rotation: Tensor) -> Tensor:  # [K, K]
    """Turns coefficients of degree 1 and above: with it, basis(d) c' = basis(R^T d) c for every direction d."""
    directions = torch.nn.functional.normalize(
        torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    )
    r = rotation.cpu().double()
    return torch.linalg.lstsq(sh_bases(degree, directions), sh_bases(degree, directions @ r)).solution[1:, 1:]


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
