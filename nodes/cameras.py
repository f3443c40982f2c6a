"""Where the training cameras stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..dreamer_core.orbit import CAMERA_PRESETS, SET_BY_ANGLES, OrbitConfig
from ..dreamer_core.settings import Setting, own_settings
from .sockets import CATEGORY, DreamerCameras, errors_named
from .widgets import ANGLES, LEFT_ALONE, PRESET, ordered, overrides, preset_widgets, refusal, settings_of, shown, usable

CUSTOM = "custom"
BEFORE_ANGLES = (
    "cameras.radius", "cameras.fov", "cameras.elevation", "cameras.azimuth", "cameras.concentration",
    "background.white", "background.black", "cameras.progress_every", "cameras.radius_factor", "cameras.final_radius",
    "cameras.fov_factor", "cameras.final_fov_min", "cameras.center_jitter", "cameras.target_jitter",
    "cameras.up_jitter",
)  # fmt: skip
"""Saved graphs hold values by position."""


def _settings() -> list[Setting]:
    return ordered([*settings_of("cameras"), *settings_of("background")], BEFORE_ANGLES)


def _described(angles: Mapping[str, Any]) -> str:
    """What a camera preset says beyond the defaults, in words."""
    words = []
    for setting in own_settings(OrbitConfig):
        value = angles.get(setting.field)
        if setting.is_pair and value is not None:
            words.append(f"{setting.field} {shown(value[0])} to {shown(value[1])} {setting.knob.unit}".rstrip())
        elif value is not None and value != setting.default:
            words.append(f"{setting.field} {shown(value)}")
    return ", ".join(words)


class DreamerXLCameras(io.ComfyNode):
    """DREAMER_CAMERAS: the distribution of views, and what stands behind the object."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        settings = _settings()
        angles = io.Combo.Input(
            ANGLES,
            options=[CUSTOM, *CAMERA_PRESETS],
            default=CUSTOM,
            optional=True,
            tooltip=f"custom: as set here, or the preset's. The others replace {', '.join(SET_BY_ANGLES)}. "
            + " ".join(f"{name}: {_described(given)}." for name, given in CAMERA_PRESETS.items()),
        )
        return io.Schema(
            node_id="DreamerXLCameras",
            display_name="Dreamer XL Cameras",
            category=CATEGORY,
            description=f"The cameras that each step draws, and what stands behind the object. {LEFT_ALONE}",
            search_aliases=["orbit", "camera distribution", "viewpoints", "random background"],
            inputs=[
                *preset_widgets(settings[: len(BEFORE_ANGLES)]),
                angles,
                *preset_widgets(settings[len(BEFORE_ANGLES) :]),
            ],
            outputs=[DreamerCameras.Output(display_name="cameras", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        radius_min: float | str | None = PRESET,
        radius_max: float | str | None = PRESET,
        fov_min: float | str | None = PRESET,
        fov_max: float | str | None = PRESET,
        elevation_min: float | str | None = PRESET,
        elevation_max: float | str | None = PRESET,
        white: float | str | None = PRESET,
        black: float | str | None = PRESET,
    ) -> bool | str:
        return refusal(_settings(), {name: value for name, value in locals().items() if name != "cls"})

    @classmethod
    def execute(cls, angles: str = CUSTOM, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Cameras"):
            given = overrides(_settings(), values)
            return io.NodeOutput(usable(given if angles == CUSTOM else {**given, ANGLES: angles}))
