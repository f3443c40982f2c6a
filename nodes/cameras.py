"""Where the training cameras stand."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dreamer_core.cameras import CAMERA_PRESETS
from ..dreamer_core.settings import Setting
from .sockets import CATEGORY, DreamerCameras, errors_named
from .widgets import ordered, overrides, preset_widgets, settings_of

ANGLES = ("custom", *CAMERA_PRESETS)
BEFORE_ANGLES = (
    "cameras.radius", "cameras.fov", "cameras.elevation", "cameras.azimuth", "cameras.concentration",
    "background.white", "background.black", "cameras.progress_every", "cameras.radius_factor", "cameras.final_radius",
    "cameras.fov_factor", "cameras.final_fov_min", "cameras.center_jitter", "cameras.target_jitter",
    "cameras.up_jitter",
)  # fmt: skip
"""Saved graphs hold values by position."""


def _settings() -> list[Setting]:
    return ordered([*settings_of("cameras"), *settings_of("background")], BEFORE_ANGLES)


class DreamerXLCameras(io.ComfyNode):
    """DREAMER_CAMERAS: the distribution of views, and what stands behind the object."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        settings = _settings()
        angles = io.Combo.Input(
            "angles",
            options=list(ANGLES),
            default="custom",
            optional=True,
            tooltip="custom: elevation and azimuth as set here, or the preset's. The others set both, in degrees. "
            "object: all around, from a little below to 45 above. head: the front, growing to all around. full: also "
            "from far below and above.",
        )
        return io.Schema(
            node_id="DreamerXLCameras",
            display_name="Dreamer XL Cameras",
            category=CATEGORY,
            description="The cameras that each step draws, and what stands behind the object. What nobody touches is "
            "the preset's.",
            search_aliases=["orbit", "camera distribution", "viewpoints", "random background"],
            inputs=[
                *preset_widgets(settings[: len(BEFORE_ANGLES)]),
                angles,
                *preset_widgets(settings[len(BEFORE_ANGLES) :]),
            ],
            outputs=[DreamerCameras.Output(display_name="cameras", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def execute(cls, angles: str = "custom", **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Cameras"):
            given = overrides(_settings(), values)
            return io.NodeOutput(given if angles == "custom" else {**given, "angles": angles})
