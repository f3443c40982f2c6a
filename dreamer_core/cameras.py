"""Cameras: OpenCV matrices, orbits, turntables; perspective and orthographic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One camera (OpenCV)."""

    viewmat: Tensor  # [4, 4] world -> camera
    K: Tensor  # [3, 3] pixels
    width: int
    height: int
    orthographic: bool = False


@dataclass(frozen=True)
class Cameras:
    """A batch of C cameras of one image size, with the angles they were made from."""

    viewmats: Tensor  # [C, 4, 4] world -> camera, OpenCV
    Ks: Tensor  # [C, 3, 3] pixels; of orthographic cameras the focal lengths are pixels per world unit
    width: int
    height: int
    azimuth: Tensor  # [C] degrees in (-180, 180]
    elevation: Tensor  # [C] degrees
    fov: Tensor  # [C] radians, over the height; of orthographic cameras as the origin's plane is seen from their place
    orthographic: bool = False
    """Parallel rays: x = f X + c, whatever the depth."""

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, index: int) -> Camera:
        return Camera(self.viewmats[index], self.Ks[index], self.width, self.height, self.orthographic)

    def at(self, views: Sequence[int]) -> Cameras:
        """Some of them."""
        chosen = list(views)
        return replace(
            self,
            viewmats=self.viewmats[chosen],
            Ks=self.Ks[chosen],
            azimuth=self.azimuth[chosen],
            elevation=self.elevation[chosen],
            fov=self.fov[chosen],
        )

    def mirrored(self) -> Cameras:
        """What mirrored pictures show by their angles: the other side. The matrices stay."""
        return replace(self, azimuth=wrap_degrees(-self.azimuth))

    def to(self, device: torch.device | str) -> Cameras:
        """On a device; azimuth and elevation stay where they are, for words depend on them, not pictures."""
        return replace(self, viewmats=self.viewmats.to(device), Ks=self.Ks.to(device), fov=self.fov.to(device))


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


def project_points(cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [C, N, 2] and depths [C, N] of world points [N, 3]."""
    local = points @ cameras.viewmats[:, :3, :3].transpose(1, 2) + cameras.viewmats[:, None, :3, 3]
    depths = local[..., 2]
    flat = local[..., :2] if cameras.orthographic else local[..., :2] / depths[..., None]
    focal = torch.diagonal(cameras.Ks[:, :2, :2], dim1=1, dim2=2)
    return flat * focal[:, None] + cameras.Ks[:, None, :2, 2], depths


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


def orthographic_cameras(
    azimuth: Tensor | Sequence[float],  # [C] degrees
    elevation: Tensor | Sequence[float] | float,  # degrees
    half_width: Tensor | float,  # world units
    resolution: int,
    radius: Tensor | float = 4.0,
) -> Cameras:
    """Orthographic cameras that look at the origin with Y up; pictures are square and show `half_width` to each side.

    `radius` decides no picture, only depths, and what lies behind a camera.
    """
    cameras = orbit_cameras(azimuth, elevation, radius, 0.0, resolution)
    half = torch.as_tensor(half_width, dtype=torch.float32).expand_as(cameras.azimuth)
    distance = torch.as_tensor(radius, dtype=torch.float32).expand_as(cameras.azimuth)
    Ks = torch.zeros_like(cameras.Ks)
    Ks[:, 0, 0] = Ks[:, 1, 1] = resolution / (2 * half)
    Ks[:, 0, 2] = Ks[:, 1, 2] = resolution / 2
    Ks[:, 2, 2] = 1.0
    return replace(cameras, Ks=Ks, fov=2 * torch.atan(half / distance), orthographic=True)


def turntable(
    views: int = 120,
    resolution: int = 512,
    *,
    elevation: float = 0.0,
    radius: float = 3.5,
    fov: float = 0.55,
    start: float = 0.0,
    half_width: float | None = None,
) -> Cameras:
    """Evenly spaced views around the object; the defaults are the evaluation protocol (polar angle 90 degrees).

    With a `half_width` in world units the cameras are orthographic, and `fov` does not count.
    """
    azimuth = start + torch.arange(views, dtype=torch.float32) * (360.0 / views)
    if half_width is not None:
        return orthographic_cameras(azimuth, elevation, half_width, resolution, radius)
    return orbit_cameras(azimuth, elevation, radius, fov, resolution)
