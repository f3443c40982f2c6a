"""The training distribution of cameras."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from .cameras import Cameras, intrinsics, look_at, orbit_position, wrap_degrees
from .errors import InputError
from .settings import Knob, Settings

Pair = tuple[float, float]
_UNITS = "in world units; an object fits a ball of radius 1"


@dataclass(frozen=True)
class OrbitConfig(Settings):
    """The training distribution of cameras (the defaults are those of Dreamer XL's configuration `bagel`).

    The ranges progress every `progress_every` steps: the radius by a factor down to `final_radius`, the low end of the
    field of view by a factor down to `final_fov_min`, the azimuth by a factor up to `final_azimuth`.
    """

    group: ClassVar[str] = "cameras"

    radius: Annotated[
        Pair,
        Knob(
            f"Nearest camera, {_UNITS}. Published: 5.2.",
            0.1,
            100.0,
            0.1,
            second_tip=f"Farthest camera, {_UNITS}. Published: 5.5.",
        ),
    ] = (5.2, 5.5)
    fov: Annotated[
        Pair,
        Knob(
            "Narrowest view in degrees over the height. Published: 18.3. Good: 10 to 35.",
            1.0,
            150.0,
            0.1,
            second_tip="Widest view in degrees over the height. Published: 34.4. Good: 20 to 45.",
            unit="degrees",
        ),
    ] = (math.degrees(0.32), math.degrees(0.60))
    """Published in radians."""
    elevation: Annotated[
        Pair,
        Knob(
            "Lowest camera in degrees; 0 is level. Published: -15; 0 for figures and heads.",
            -90.0,
            90.0,
            1.0,
            second_tip="Highest camera in degrees; 90 is overhead. Published: 45; 30 for figures.",
            unit="degrees",
        ),
    ] = (-15.0, 45.0)
    """The published polar range [45, 105] is elevation [-15, 45]."""
    azimuth: Annotated[
        Pair,
        Knob(
            "Lowest azimuth in degrees; 0 is the front, 90 is +X. Published: -180; -80 for a head.",
            -360.0,
            360.0,
            1.0,
            advanced=True,
            unit="degrees",
            second_tip="Highest azimuth in degrees; -180 to 180 is all around. Published: 180; 80 for a head.",
        ),
    ] = (-180.0, 180.0)
    concentration: Annotated[
        float,
        Knob(
            "Exponent; above 1: more views from the middle of both angle ranges. Published: 1; 1.5 or 1.8 for figures "
            "and heads. Good: 1 to 1.8.",
            0.1,
            5.0,
            0.1,
            advanced=True,
        ),
    ] = 1.0
    """Exponent g of `mid + sign * U^g * half`."""
    progress_every: Annotated[
        int,
        Knob(
            "Every so many steps the cameras come nearer and the view narrows. Published: 500. 0: never.",
            0,
            1_000_000,
            1,
            advanced=True,
        ),
    ] = 500
    radius_factor: Annotated[
        float,
        Knob(
            "Factor on the radii whenever the cameras come nearer. Published: 0.95. Good: 0.9 to 1. 1: no change.",
            0.1,
            2.0,
            0.01,
            advanced=True,
        ),
    ] = 0.95
    final_radius: Annotated[
        Pair,
        Knob(
            f"radius_min ends here, {_UNITS}. Published: 3.5.",
            0.1,
            100.0,
            0.1,
            advanced=True,
            was="cameras.radius_floor",
            second_tip=f"radius_max ends here, {_UNITS}. Published: 5.",
        ),
    ] = (3.5, 5.0)
    fov_factor: Annotated[
        float,
        Knob(
            "Factor on fov_min whenever the view narrows. Published: 0.75. Good: 0.7 to 1. 1: no change.",
            0.1,
            1.0,
            0.01,
            advanced=True,
        ),
    ] = 0.75
    final_fov_min: Annotated[
        float,
        Knob(
            "fov_min ends here, in degrees. Published: 9.2. Good: 5 to 20.",
            1.0,
            150.0,
            0.1,
            advanced=True,
            unit="degrees",
            was="cameras.fov_floor",
        ),
    ] = math.degrees(0.16)
    center_jitter: Annotated[
        float,
        Knob(
            "Largest shift of a camera, in world units. Published: 0.025. Good: 0 to 0.1.",
            0.0,
            1.0,
            0.005,
            advanced=True,
        ),
    ] = 0.025
    target_jitter: Annotated[
        float,
        Knob(
            "Spread of the point looked at, in world units. Published: 0.05. Good: 0 to 0.1.",
            0.0,
            1.0,
            0.005,
            advanced=True,
        ),
    ] = 0.05
    up_jitter: Annotated[
        float,
        Knob(
            "Spread of the up direction (unitless). Published: 0.01. Good: 0 to 0.05.", 0.0, 1.0, 0.001, advanced=True
        ),
    ] = 0.01
    azimuth_factor: Annotated[
        float,
        Knob(
            "Factor on the azimuths whenever the cameras come nearer: more and more is seen. Published: 1.5 for a "
            "head. Good: 1 to 2. 1: no change.",
            1.0,
            10.0,
            0.1,
            advanced=True,
        ),
    ] = 1.0
    fov_pool: Annotated[
        int,
        Knob(
            "Number of successive steps that share one field of view. 0: fov_pool_views decides.",
            0,
            1_000_000,
            1,
            label="steps per field of view",
            advanced=True,
        ),
    ] = 0
    fov_pool_views: Annotated[
        int,
        Knob(
            "Number of successive views that share one field of view. Published: 10. 0: every view has its own.",
            0,
            1_000_000,
            1,
            label="views per field of view",
            advanced=True,
        ),
    ] = 10
    final_azimuth: Annotated[
        Pair,
        Knob(
            "azimuth_min ends here, in degrees. Published: -180.",
            -360.0,
            360.0,
            1.0,
            advanced=True,
            unit="degrees",
            was="cameras.azimuth_limit",
            second_tip="azimuth_max ends here, in degrees. Published: 180.",
        ),
    ] = (-180.0, 180.0)

    def _progress(self, step: int) -> int:
        return step // self.progress_every if self.progress_every > 0 else 0

    def ranges(self, step: int) -> tuple[Pair, Pair]:
        """The radius and field-of-view (degrees) ranges in force at `step`."""
        k = self._progress(step)
        shrink = self.radius_factor**k
        low = max(self.radius[0] * shrink, min(self.final_radius[0], self.radius[0]))
        high = max(self.radius[1] * shrink, min(self.final_radius[1], self.radius[1]))
        fov_low = max(self.fov[0] * self.fov_factor**k, min(self.final_fov_min, self.fov[0]))
        return (low, high), (fov_low, self.fov[1])

    def azimuth_range(self, step: int) -> Pair:
        """The azimuth range in force at `step`."""
        grow = self.azimuth_factor ** min(self._progress(step), 100)
        (low, high), (lowest, highest) = self.azimuth, self.final_azimuth
        return min(max(low * grow, lowest), low), max(min(high * grow, highest), high)


CAMERA_PRESETS: dict[str, dict[str, Any]] = {
    "object": {"elevation": (-15.0, 45.0), "azimuth": (-180.0, 180.0), "azimuth_factor": 1.0},
    "head": {"elevation": (0.0, 45.0), "azimuth": (-80.0, 80.0), "azimuth_factor": 1.5, "concentration": 1.5},
    "full": {"elevation": (-60.0, 80.0), "azimuth": (-180.0, 180.0), "azimuth_factor": 1.0},
}
"""Angles by what is made. `object` and `head` are published configurations; a head's azimuth grows to a full turn
(80, 120, 180). `full` also looks from below and above, for things without a side that stands on the ground."""


SET_BY_ANGLES = ("elevation", "azimuth", "azimuth_factor")
"""What every one of them says."""
PROGRESSES = 4
"""Times that angles grow over a run whose cameras would otherwise keep their ranges."""


def with_angles(config: OrbitConfig, preset: str, schedule_steps: int = 0) -> OrbitConfig:
    """`config` with the angles of a preset; distances and fields of view stay. Errors: InputError.

    Where nothing progresses, angles that grow do so at quarters of `schedule_steps`, and nothing else does.
    """
    if preset not in CAMERA_PRESETS:
        raise InputError("angles", f"one of {', '.join(CAMERA_PRESETS)}", preset)
    changed = replace(config, **CAMERA_PRESETS[preset])
    if changed.azimuth_factor == 1 or config.progress_every > 0 or schedule_steps < PROGRESSES:
        return changed
    return replace(changed, progress_every=schedule_steps // PROGRESSES, radius_factor=1.0, fov_factor=1.0)


def pooled_fov(config: OrbitConfig, views: int, step: int, draw: Callable[[int], float]) -> Tensor | None:
    """Where the views of a step lie in the range of fields of view, [views] in [0, 1]; None where each draws its own.

    `draw(pool)` gives the place of a pool, the same whenever it is asked.
    """
    if config.fov_pool > 0:
        return torch.full((views,), draw(step // config.fov_pool))
    if config.fov_pool_views > 0:
        return torch.tensor([draw((step * views + view) // config.fov_pool_views) for view in range(views)])
    return None


def sample_orbit(
    config: OrbitConfig,
    views: int,
    resolution: int,
    step: int,
    generator: torch.Generator,
    fov_places: Tensor | None = None,  # [views] in [0, 1], from `pooled_fov`
) -> Cameras:
    """Random training cameras (C dataset_readers.py:241 restated); the generator is a CPU generator."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(views, generator=generator)

    def concentrated(low: float, high: float) -> Tensor:
        sign = torch.where(torch.rand(views, generator=generator) < 0.5, -1.0, 1.0)
        amount = torch.rand(views, generator=generator) ** config.concentration
        return (low + high) / 2 + sign * amount * (high - low) / 2

    radius_range, fov_degrees = config.ranges(step)
    narrow, wide = (math.radians(end) for end in fov_degrees)
    radius = uniform(*radius_range)
    fov = uniform(narrow, wide)
    if fov_places is not None:
        fov = narrow + (wide - narrow) * fov_places
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
