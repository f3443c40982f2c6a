"""What the object should be like, whatever the teacher says."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import CATEGORY, DreamerRegularizers, errors_named
from .widgets import LEFT_ALONE, overrides, preset_widgets, settings_of, usable


class DreamerXLRegularizers(io.ComfyNode):
    """DREAMER_REGULARIZERS: weights of the terms that look at the object itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLRegularizers",
            display_name="Dreamer XL Regularizers",
            category=CATEGORY,
            description=f"Keeps the object smooth and its Gaussians small, whatever the prompt asks for. {LEFT_ALONE}",
            search_aliases=["total variation", "smoothness", "noise", "needles", "spiky splat", "regularisation"],
            inputs=preset_widgets(settings_of("regularizers")),
            outputs=[DreamerRegularizers.Output(display_name="regularizers", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Regularizers"):
            return io.NodeOutput(usable(overrides(settings_of("regularizers"), values)))
