"""Cameras: OpenCV matrices, orbits, the published training distribution, turntables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True)
class Camera:
    """One pinhole camera (OpenCV)."""

    viewmat: Tensor  # [4, 4] world -> camera
    K: Tensor  # [3, 3] pixels
    width: int
    height: int


@dataclass(frozen=True)
class Cameras:
    """A batch of C cameras of one image size, with the angles they were made from."""

    viewmats: Tensor  # [C, 4, 4] world -> camera, OpenCV
    Ks: Tensor  # [C, 3, 3] pixels
    width: int
    height: int
    azimuth: Tensor  # [C] degrees in (-180, 180]
    elevation: Tensor  # [C] degrees
    fov: Tensor  # [C] radians, over the height

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, index: int) -> Camera:
        return Camera(self.viewmats[index], self.Ks[index], self.width, self.height)

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(
            self.viewmats.to(device),
            self.Ks.to(device),
            self.width,
            self.height,
            self.azimuth.to(device),
            self.elevation.to(device),
            self.fov.to(device),
        )


def wrap_degrees(angle: Tensor) -> Tensor:
    """The same angle in (-180, 180]."""
    return -((-angle + 180.0) % 360.0 - 180.0)


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """OpenCV view matrices [C, 4, 4] from positions, targets and up vectors, each [C, 3]."""
    normalize = torch.nn.functional.normalize
    forward = normalize(target - eye, dim=-1)
    right = torch.linalg.cross(forward, up)
    # Straight up or down the up vector is parallel to the view; any perpendicular will do.
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-6
    right = normalize(torch.where(degenerate, right.new_tensor([1.0, 0.0, 0.0]), right), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)
    viewmats = torch.eye(4, dtype=eye.dtype, device=eye.device).repeat(eye.shape[0], 1, 1)
    viewmats[:, :3, :3] = rotation
    viewmats[:, :3, 3] = -(rotation @ eye[..., None])[..., 0]
    return viewmats


def intrinsics(fov: Tensor, width: int, height: int) -> Tensor:
    """K [C, 3, 3] of square pixels with the principal point in the middle; `fov` [C] radians over the height."""
    focal = height / 2 / torch.tan(fov / 2)
    Ks = torch.zeros(*fov.shape, 3, 3, dtype=fov.dtype, device=fov.device)
    Ks[..., 0, 0] = Ks[..., 1, 1] = focal
    Ks[..., 0, 2], Ks[..., 1, 2], Ks[..., 2, 2] = width / 2, height / 2, 1.0
    return Ks


def orbit_position(azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Tensor:
    """Points [C, 3] on spheres around the origin; angles in degrees. Azimuth 0 is +Z, 90 is +X."""
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    return radius[..., None] * torch.stack([e.cos() * a.sin(), e.sin(), e.cos() * a.cos()], dim=-1)


def orbit_cameras(
    azimuth: Tensor | Sequence[float],  # [C] degrees
    elevation: Tensor | Sequence[float] | float,  # degrees
    radius: Tensor | float,
    fov: Tensor | float,  # radians
    width: int,
    height: int | None = None,
) -> Cameras:
    """Cameras on an orbit that look at the origin with Y up."""
    azimuth = torch.as_tensor(azimuth, dtype=torch.float32).reshape(-1)
    elevation = torch.as_tensor(elevation, dtype=torch.float32).expand_as(azimuth)
    radii = torch.as_tensor(radius, dtype=torch.float32).expand_as(azimuth)
    fovs = torch.as_tensor(fov, dtype=torch.float32).expand_as(azimuth)
    height = height or width
    eye = orbit_position(azimuth, elevation, radii)
    up = eye.new_tensor([0.0, 1.0, 0.0]).expand_as(eye)
    viewmats = look_at(eye, torch.zeros_like(eye), up)
    return Cameras(
        viewmats,
        intrinsics(fovs, width, height),
        width,
        height,
        wrap_degrees(azimuth),
        elevation.contiguous(),
        fovs.contiguous(),
    )


def turntable(
    views: int = 120,
    resolution: int = 512,
    *,
    elevation: float = 0.0,
    radius: float = 3.5,
    fov: float = 0.55,
    start: float = 0.0,
) -> Cameras:
    """Evenly spaced views around the object; the defaults are the evaluation protocol (polar angle 90 degrees)."""
    azimuth = start + torch.arange(views, dtype=torch.float32) * (360.0 / views)
    return orbit_cameras(azimuth, elevation, radius, fov, resolution)


@dataclass(frozen=True)
class OrbitConfig:
    """The training distribution of cameras (the defaults are those of Dreamer XL's configuration `bagel`).

    The ranges progress every `progress_every` steps: the radius by a factor down to `radius_floor`, the low end of the
    field of view by a factor down to `fov_floor`, the azimuth by a factor up to `azimuth_limit`.
    """

    radius: tuple[float, float] = (5.2, 5.5)
    """World units, uniform."""
    radius_factor: float = 0.95
    radius_floor: tuple[float, float] = (3.5, 5.0)
    fov: tuple[float, float] = (0.32, 0.60)
    """Radians over the image height, uniform."""
    fov_factor: float = 0.75
    fov_floor: float = 0.16
    fov_pool: int = 0
    """Consecutive steps whose views share one field of view; 0 draws one for every view."""
    progress_every: int = 500
    """Steps between two progressions; 0 keeps the ranges."""
    elevation: tuple[float, float] = (-15.0, 45.0)
    """Degrees; the published polar range [45, 105] is elevation [-15, 45]."""
    azimuth: tuple[float, float] = (-180.0, 180.0)
    """Degrees."""
    azimuth_factor: float = 1.0
    """Factor of both ends of `azimuth` at every progress; above 1 more of the sides is seen as a shape grows."""
    azimuth_limit: tuple[float, float] = (-180.0, 180.0)
    """Where that growth ends."""
    concentration: float = 1.0
    """Exponent g of `mid + sign * U^g * half`: above 1 more views from the middle of both angle ranges."""
    center_jitter: float = 0.025
    """Uniform +- jitter of the camera's position."""
    target_jitter: float = 0.05
    """Standard deviation of the point looked at."""
    up_jitter: float = 0.01
    """Standard deviation of the up vector."""

    def __post_init__(self) -> None:
        for name in ("radius", "radius_floor", "fov", "elevation", "azimuth", "azimuth_limit"):
            low, high = getattr(self, name)
            if not low <= high:
                raise InputError(f"cameras.{name}", "low <= high", (low, high))
        if self.radius[0] <= 0 or self.radius_floor[0] <= 0:
            raise InputError("cameras.radius", "positive distances", self.radius)
        if not self.fov[0] > 0 or not self.fov[1] < math.pi:
            raise InputError("cameras.fov", "radians between 0 and pi", self.fov)
        if not (self.elevation[0] >= -90 and self.elevation[1] <= 90):
            raise InputError("cameras.elevation", "degrees within [-90, 90]", self.elevation)
        if self.concentration <= 0:
            raise InputError("cameras.concentration", "a number above 0", self.concentration)
        if not self.azimuth_factor >= 1:
            raise InputError("cameras.azimuth_factor", "a factor of at least 1", self.azimuth_factor)
        for name in ("center_jitter", "target_jitter", "up_jitter"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"cameras.{name}", "a finite number of 0 or more", getattr(self, name))
        if self.fov_pool < 0:
            raise InputError("cameras.fov_pool", "0 or more steps", self.fov_pool)

    def _progress(self, step: int) -> int:
        return step // self.progress_every if self.progress_every > 0 else 0

    def ranges(self, step: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """The radius and field-of-view ranges in force at `step`."""
        k = self._progress(step)
        shrink = self.radius_factor**k
        low = max(self.radius[0] * shrink, min(self.radius_floor[0], self.radius[0]))
        high = max(self.radius[1] * shrink, min(self.radius_floor[1], self.radius[1]))
        fov_low = max(self.fov[0] * self.fov_factor**k, min(self.fov_floor, self.fov[0]))
        return (low, high), (fov_low, self.fov[1])

    def azimuth_range(self, step: int) -> tuple[float, float]:
        """The azimuth range in force at `step`."""
        grow = self.azimuth_factor ** min(self._progress(step), 100)
        (low, high), (lowest, highest) = self.azimuth, self.azimuth_limit
        return min(max(low * grow, lowest), low), max(min(high * grow, highest), high)


CAMERA_PRESETS: dict[str, dict[str, Any]] = {
    "object": {"elevation": (-15.0, 45.0), "azimuth": (-180.0, 180.0), "azimuth_factor": 1.0},
    "head": {"elevation": (0.0, 30.0), "azimuth": (-80.0, 80.0), "azimuth_factor": 1.5},
    "full": {"elevation": (-60.0, 80.0), "azimuth": (-180.0, 180.0), "azimuth_factor": 1.0},
}
"""Angles by what is made. `object` is published (bagel). So is the azimuth of `head`, which grows to a full turn
(batman: 80, 120, 180), but with elevations 0 to 45; 0 to 30 are those of a dog and a figure seen all around. `full`
also looks from below and above, for things without a side that stands on the ground."""


PROGRESSES = 4
"""Times that angles grow over a run whose cameras would otherwise keep their ranges."""


def with_angles(config: OrbitConfig, preset: str, schedule_steps: int = 0) -> OrbitConfig:
    """`config` with the angles of a preset; distances and fields of view stay. Errors: InputError.

    Where nothing progresses, angles that grow do so at quarters of `schedule_steps`, and nothing else does.
    """
    if preset not in CAMERA_PRESETS:
        raise InputError("cameras", f"one of {', '.join(CAMERA_PRESETS)}", preset)
    changed = replace(config, **CAMERA_PRESETS[preset])
    if changed.azimuth_factor == 1 or config.progress_every > 0 or schedule_steps < PROGRESSES:
        return changed
    return replace(changed, progress_every=schedule_steps // PROGRESSES, radius_factor=1.0, fov_factor=1.0)


def sample_orbit(
    config: OrbitConfig,
    views: int,
    resolution: int,
    step: int,
    generator: torch.Generator,
    pool_generator: torch.Generator | None = None,
) -> Cameras:
    """Random training cameras (C dataset_readers.py:241 restated); the generators are CPU generators.

    With `pool_generator` all views have the one field of view that it draws; give every step of a pool an equal one.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(views, generator=generator)

    def concentrated(low: float, high: float) -> Tensor:
        sign = torch.where(torch.rand(views, generator=generator) < 0.5, -1.0, 1.0)
        amount = torch.rand(views, generator=generator) ** config.concentration
        return (low + high) / 2 + sign * amount * (high - low) / 2

    radius_range, fov_range = config.ranges(step)
    radius = uniform(*radius_range)
    fov = uniform(*fov_range)
    if pool_generator is not None:
        drawn = torch.rand((), generator=pool_generator)
        fov = (fov_range[0] + (fov_range[1] - fov_range[0]) * drawn).expand(views).contiguous()
    azimuth = concentrated(*config.azimuth_range(step))
    elevation = concentrated(*config.elevation)
    eye = orbit_position(azimuth, elevation, radius)
    eye = eye + config.center_jitter * (2 * torch.rand(views, 3, generator=generator) - 1)
    target = config.target_jitter * torch.randn(views, 3, generator=generator)
    up = torch.tensor([0.0, 1.0, 0.0]) + config.up_jitter * torch.randn(views, 3, generator=generator)
    return Cameras(
        look_at(eye, target, up),
        intrinsics(fov, resolution, resolution),
        resolution,
        resolution,
        wrap_degrees(azimuth),
        elevation,
        fov,
    )
