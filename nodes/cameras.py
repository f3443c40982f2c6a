"""Where the training cameras stand."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ..dreamer_core.cameras import CAMERA_PRESETS, OrbitConfig, with_angles
from ..dreamer_core.optimize import BackgroundConfig
from .sockets import CATEGORY, CameraSettings, DreamerCameras, errors_named, validated

_DEGREES = 180.0 / math.pi
ANGLES = ("custom", *CAMERA_PRESETS)


def _orbit(values: dict) -> CameraSettings:
    """The core's configuration; fields of view arrive in degrees."""
    pairs: dict[str, Any] = {
        name: (values.pop(f"{name}_min"), values.pop(f"{name}_max")) for name in ("radius", "elevation", "azimuth")
    }
    fov = (values.pop("fov_min") / _DEGREES, values.pop("fov_max") / _DEGREES)
    final_radius = values.pop("final_radius_min"), values.pop("final_radius_max")
    background = BackgroundConfig(values.pop("white"), values.pop("black"))
    angles = values.pop("angles")
    orbit = OrbitConfig(
        fov=fov, fov_floor=values.pop("final_fov_min") / _DEGREES, radius_floor=final_radius, **pairs, **values
    )
    if angles != "custom":
        orbit = with_angles(orbit, angles)
    return CameraSettings(orbit, background)


class DreamerXLCameras(io.ComfyNode):
    """DREAMER_CAMERAS: the distribution of views, and what stands behind the object."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def number(
            name: str, default: float, low: float, high: float, step: float, tip: str, advanced: bool = False
        ) -> io.Input:
            return io.Float.Input(
                name,
                default=default,
                min=low,
                max=high,
                step=step,
                tooltip=tip,
                optional=True,
                advanced=advanced,
            )

        units = "world units; an object fits a ball of radius 1"
        return io.Schema(
            node_id="DreamerXLCameras",
            display_name="Dreamer XL Cameras",
            category=CATEGORY,
            description="The cameras that each step draws. The defaults are the published ranges.",
            search_aliases=["orbit", "camera distribution", "viewpoints", "random background"],
            inputs=[
                number("radius_min", 5.2, 0.5, 50.0, 0.1, f"Nearest camera, in {units}. Published: 5.2."),
                number("radius_max", 5.5, 0.5, 50.0, 0.1, f"Farthest camera, in {units}. Published: 5.5."),
                number("fov_min", 18.3, 1.0, 120.0, 0.1, "Narrowest view in degrees over the height. 10 to 35."),
                number("fov_max", 34.4, 1.0, 120.0, 0.1, "Widest view in degrees over the height. 20 to 45."),
                number("elevation_min", -15.0, -90.0, 90.0, 1.0, "Lowest camera in degrees; 0 is level."),
                number("elevation_max", 45.0, -90.0, 90.0, 1.0, "Highest camera in degrees; 90 is overhead."),
                number("azimuth_min", -180.0, -180.0, 180.0, 1.0, "Degrees; 0 is the front, 90 is +X.", True),
                number("azimuth_max", 180.0, -180.0, 180.0, 1.0, "Degrees; -180 to 180 is all around.", True),
                number("concentration", 1.0, 0.1, 5.0, 0.1, "Above 1: more views from the middle. 1 to 1.8.", True),
                number("white", 0.34, 0.0, 1.0, 0.01, "Share of views on white. Published: 0.34.", True),
                number(
                    "black",
                    0.33,
                    0.0,
                    1.0,
                    0.01,
                    "Share of views on black. Published: 0.33. The rest: random colours.",
                    True,
                ),
                io.Int.Input(
                    "progress_every",
                    default=500,
                    min=0,
                    max=100_000,
                    optional=True,
                    advanced=True,
                    tooltip="Steps after which the cameras come nearer and the view narrows. 0: never.",
                ),
                number(
                    "radius_factor",
                    0.95,
                    0.1,
                    1.0,
                    0.01,
                    "Factor of the radii at every progress. 0.9 to 1; 1: none.",
                    True,
                ),
                number("final_radius_min", 3.5, 0.1, 50.0, 0.1, f"radius_min ends here, in {units}.", True),
                number("final_radius_max", 5.0, 0.1, 50.0, 0.1, f"radius_max ends here, in {units}.", True),
                number(
                    "fov_factor", 0.75, 0.1, 1.0, 0.01, "Factor of fov_min at every progress. 0.7 to 1; 1: none.", True
                ),
                number("final_fov_min", 9.2, 1.0, 120.0, 0.1, "fov_min ends here, in degrees. 5 to 20.", True),
                number(
                    "center_jitter", 0.025, 0.0, 1.0, 0.005, "Largest shift of a camera, world units. 0 to 0.1.", True
                ),
                number(
                    "target_jitter",
                    0.05,
                    0.0,
                    1.0,
                    0.005,
                    "Spread of the point looked at, world units. 0 to 0.1.",
                    True,
                ),
                number("up_jitter", 0.01, 0.0, 1.0, 0.005, "Spread of the up direction (unitless). 0 to 0.05.", True),
                io.Combo.Input(
                    "angles",
                    options=list(ANGLES),
                    default="custom",
                    optional=True,
                    tooltip="custom: elevation and azimuth as set here, in degrees. The others set both: object: all "
                    "around, from a little below to 45 above. head: the front, growing to all around. full: also from "
                    "far below and above.",
                ),
                number(
                    "azimuth_factor", 1.0, 1.0, 10.0, 0.1, "Factor of the azimuths at every progress. 1: none.", True
                ),
                io.Int.Input(
                    "fov_pool",
                    display_name="steps per field of view",
                    default=0,
                    min=0,
                    max=100_000,
                    optional=True,
                    advanced=True,
                    tooltip="So many steps in a row share one field of view. 0: every view draws its own. 0, or 500.",
                ),
            ],
            outputs=[DreamerCameras.Output(display_name="cameras", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def _values(cls, given: dict) -> dict:
        return {i.id: i.default for i in cls.define_schema().inputs} | given

    @classmethod
    def validate_inputs(
        cls,
        radius_min: float | None = 5.2,
        radius_max: float | None = 5.5,
        fov_min: float | None = 18.3,
        fov_max: float | None = 34.4,
        elevation_min: float | None = -15.0,
        elevation_max: float | None = 45.0,
        azimuth_min: float | None = -180.0,
        azimuth_max: float | None = 180.0,
        final_radius_min: float | None = 3.5,
        final_radius_max: float | None = 5.0,
        white: float | None = 0.34,
        black: float | None = 0.33,
        angles: str | None = "custom",
    ) -> bool | str:
        given = {k: v for k, v in locals().items() if k != "cls"}
        if angles is not None and angles not in ANGLES:
            return f"angles: expected one of {', '.join(ANGLES)}, got {angles}"
        return validated(cls, given, lambda: _orbit(cls._values(given)))

    @classmethod
    def execute(cls, **values: float | str) -> io.NodeOutput:
        with errors_named("Dreamer XL Cameras"):
            return io.NodeOutput(_orbit(cls._values(values)))
