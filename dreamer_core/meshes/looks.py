"""Pictures and depths of a splat from all around: what a mesh of it is made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras
from ..errors import InputError
from ..gaussians import Gaussians
from ..rendering.facade import rasterize
from ..rendering.renderer import RasterizeCall
from ..rendering.spherical_harmonics import view_colors
from ..rendering.torch_backend import rotation_matrices

DISTANCE = 4.0
"""Of the cameras from the centre, in radii of the object: far, so that walls hide little of what is behind."""
MARGIN = 1.06
"""How much wider than the object the pictures are."""
SOLID = 0.5
"""Coverage from which on a pixel shows the object."""
GOLDEN_ANGLE = math.degrees(math.pi * (3 - math.sqrt(5)))
FAINT = 0.1
"""Gaussians below this opacity do not count for the object's extent."""
TAIL = 0.001
"""Share of the Gaussians that may lie outside the extent, at each end of an axis."""
SKIN = 1.0
"""The surface lies so many standard deviations before a Gaussian's centre. Measured on fitted objects (see
docs/meshes.md): 0 leaves them too thin by half a Gaussian."""
FRONT = 8.0
"""What shines through from behind fades by exp(-FRONT) per radius of the object."""


@dataclass(frozen=True)
class Extent:
    """Where the object is: a box in world units."""

    low: Tensor  # [3]
    high: Tensor  # [3]

    @property
    def centre(self) -> Tensor:  # [3]
        return (self.low + self.high) / 2

    @property
    def radius(self) -> float:
        """Of the ball around the box."""
        return float((self.high - self.low).norm() / 2)


@dataclass(frozen=True)
class Looks:
    """C pictures of one object from all around."""

    cameras: Cameras
    planes: Tensor  # [C, 5, H, W]: coverage, coverage * depth of the surface in world units, RGB over black

    def __len__(self) -> int:
        return len(self.cameras)

    def project(self, points: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """Of points [N, 3]: places in the picture [N, 2] in [-1, 1] and depths [N]."""
        matrix, k = self.cameras.viewmats[view].to(points), self.cameras.Ks[view].to(points)
        x, y, z = (points @ matrix[:3, :3].T + matrix[:3, 3]).unbind(-1)
        z = z.clamp_min(1e-6)
        u = (x / z * k[0, 0] + k[0, 2]) / self.cameras.width * 2 - 1
        v = (y / z * k[1, 1] + k[1, 2]) / self.cameras.height * 2 - 1
        return torch.stack([u, v], -1), z

    def sample(self, places: Tensor, view: int, planes: int = 5) -> Tensor:
        """The first `planes` planes at places [N, 2] in [-1, 1], interpolated: [planes, N]; 0 outside."""
        picture = self.planes[view, None, :planes]
        return torch.nn.functional.grid_sample(picture, places[None, None], align_corners=False)[0, :, 0]


def extent(gaussians: Gaussians) -> Extent:
    """The box that holds the Gaussians with two of their standard deviations, but for a thousandth at each end.

    Errors: InputError where nothing is opaque enough to be seen.
    """
    seen = gaussians[gaussians.opacities > FAINT]
    if len(seen) == 0:
        raise InputError("splat", f"Gaussians of opacity above {FAINT:g}", "none", "such a splat has no surface")
    reach = 2 * seen.scales.amax(-1, keepdim=True)
    skipped = int(TAIL * len(seen))
    low = (seen.means - reach).sort(dim=0).values[skipped]
    high = (seen.means + reach).sort(dim=0).values[len(seen) - 1 - skipped]
    return Extent(low, high)


def cameras_around(place: Extent, views: int, resolution: int) -> Cameras:
    """Cameras evenly spread over the sphere around an object (a Fibonacci lattice), each with all of it in sight."""
    turns = torch.arange(views, dtype=torch.float64)
    elevation = torch.rad2deg(torch.asin(1 - (2 * turns + 1) / views)).float()
    azimuth = (turns * GOLDEN_ANGLE % 360).float()
    fov = 2 * math.asin(MARGIN / DISTANCE)
    found = orbit_cameras(azimuth, elevation, DISTANCE * place.radius, fov, resolution)
    found.viewmats[:, :3, 3] -= found.viewmats[:, :3, :3] @ place.centre.cpu().float()
    return found


def checked(gaussians: Gaussians, field: str) -> Gaussians:
    """Gaussians without NaN and inf. Errors: InputError."""
    bad = gaussians.check_finite()
    if bad is not None:
        raise InputError(field, "finite numbers", f"NaN or inf in its {bad}")
    return gaussians


def look_around(
    gaussians: Gaussians, place: Extent, cameras: Cameras, renderer: str, tick: Callable[[], None]
) -> Looks:
    """What the cameras see of the Gaussians; `tick` is called after each picture."""
    planes = []
    for view in range(len(cameras)):
        planes.append(_look(gaussians, place.radius, cameras.at([view]), renderer))
        tick()
    return Looks(cameras, torch.stack(planes))


def _look(gaussians: Gaussians, radius: float, camera: Cameras, renderer: str) -> Tensor:
    """Planes [5, H, W] of one view.

    The depth is a soft minimum, -log(mean(exp(-k z))) / k over the Gaussians of a ray: their plain mean lies behind the
    surface wherever a wall lets a little of the next one through.
    """
    viewmat = camera.viewmats[0].to(gaussians.means)
    colors = view_colors(gaussians.means, gaussians.sh, gaussians.sh_degree, viewmat[None])
    near, k = (DISTANCE - 1) * radius, FRONT / radius
    close = torch.exp(-k * (_surface_depths(gaussians, viewmat) - near))

    def draw(values: Tensor) -> tuple[Tensor, Tensor]:
        call = RasterizeCall(
            gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, values, viewmat[None],
            camera.Ks.to(gaussians.means), camera.width, camera.height,
        )  # fmt: skip
        output = rasterize(call, renderer)
        return output.colors[0].permute(2, 0, 1), output.alphas[0, ..., 0]

    (rgb, alpha), (closeness, _) = draw(colors), draw(close[:, None].expand(-1, 3).contiguous())
    depth = near - (closeness[0] / alpha.clamp_min(1e-6)).clamp_min(1e-30).log() / k
    return torch.cat([alpha[None], (alpha * depth)[None], rgb.clamp(0, 1)])


def _surface_depths(gaussians: Gaussians, viewmat: Tensor) -> Tensor:
    """Depth [N] of the point where the ray through a Gaussian's centre meets its skin."""
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
    rays = torch.nn.functional.normalize(gaussians.means - eye, dim=-1)
    own = torch.einsum("nij,ni->nj", rotation_matrices(gaussians.quats), rays)
    along = 1 / (own / gaussians.scales).norm(dim=-1)
    centres = gaussians.means @ viewmat[2, :3] + viewmat[2, 3]
    return centres - SKIN * along
