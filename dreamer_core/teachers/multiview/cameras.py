"""The views that an adapter draws, and what it is told about their cameras."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...cameras import Cameras, orbit_position, orthographic_cameras

AZIMUTHS = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)
"""Degrees of the published text adapter's six views, in its order; 0 is the front, as it is here.

Its scripts count from -90 degrees: its world has Z up, and the front looks along -Y. A camera at azimuth 90 is on the
same side in both: on +X.
"""
HALF_WIDTH = 1.1
"""World units that a picture shows to each side. Published: 0.55 of objects whose largest extent is 1; here it is 2."""
PICTURE_SIZE = 768
"""Pixels that the published adapter was trained on."""
GREY = 0.5
"""The background of its pictures."""
NOISE_SHIFT = 8.0
"""By what the signal-to-noise ratio of the noisiest training step was divided."""


def camera_maps(azimuths: Sequence[float] | Tensor, size: int) -> Tensor:
    """Maps [V, 6, size, size] in [0, 1] of orthographic cameras at elevation 0.

    All rays of such a camera are parallel, so that a map is constant: the direction in which it looks and its place at
    distance 1, in the adapter's world (x, -z, y), moved from [-1, 1] to [0, 1].
    """
    azimuth = torch.as_tensor(azimuths, dtype=torch.float64).reshape(-1)
    place = orbit_position(azimuth, torch.zeros_like(azimuth), torch.ones_like(azimuth))
    place = torch.stack([place[:, 0], -place[:, 2], place[:, 1]], dim=-1)
    both = torch.cat([-place, place], dim=-1)
    return ((both + 1) / 2).float()[:, :, None, None].expand(-1, -1, size, size)


def group_cameras(azimuths: Sequence[float] | Tensor, resolution: int, half_width: float = HALF_WIDTH) -> Cameras:
    """The cameras of a group: orthographic, at elevation 0, in the adapter's order."""
    return orthographic_cameras(azimuths, 0.0, half_width, resolution)


def shifted_sigmas(sigmas: Tensor, shift: float = NOISE_SHIFT) -> Tensor:
    """VE noise levels [T] of an adapter's training timesteps: log SNR is lowered by t / (T - 1) log `shift`."""
    share = torch.linspace(0, 1, len(sigmas), dtype=sigmas.dtype, device=sigmas.device)
    return sigmas * shift ** (share / 2)
