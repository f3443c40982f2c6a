"""When Gaussians are added and removed."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import CATEGORY, DreamerDensity, errors_named, wrong_link
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
    def validate_inputs(
        cls, enabled: str | bool | None = PRESET, input_types: dict[str, str] | None = None
    ) -> bool | str:
        # `enabled` was BOOLEAN in earlier versions: graphs hold true or false, or a link that brings one of them.
        wrong = wrong_link(cls, input_types or {}, {"enabled": io.Boolean.io_type})
        return wrong or ("" if isinstance(enabled, bool) else one_of("enabled", enabled, (PRESET, ON, OFF))) or True

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Density Control"):
            return io.NodeOutput(usable(overrides(settings_of("density"), values)))
