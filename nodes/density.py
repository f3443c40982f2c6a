"""When Gaussians are added and removed."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import CATEGORY, DreamerDensity, errors_named
from .widgets import LEFT_ALONE, OFF, ON, PRESET, one_of, overrides, preset_widgets, settings_of, usable


class DreamerXLDensityControl(io.ComfyNode):
    """DREAMER_DENSITY: growing, splitting and pruning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLDensityControl",
            display_name="Dreamer XL Density Control",
            category=CATEGORY,
            description=f"When Gaussians are added and removed. {LEFT_ALONE}",
            search_aliases=["densify", "prune", "split", "clone", "adaptive density control", "max gaussians"],
            inputs=preset_widgets(settings_of("density")),
            outputs=[DreamerDensity.Output(display_name="density", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(cls, enabled: str | bool | None = PRESET) -> bool | str:
        # Graphs of earlier versions hold true or false.
        return one_of("enabled", enabled, (PRESET, ON, OFF, True, False)) or True

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Density Control"):
            return io.NodeOutput(usable(overrides(settings_of("density"), values)))
