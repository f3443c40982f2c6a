"""What the object should be like, whatever the teacher says."""

from __future__ import annotations

from comfy_api.latest import io

from ..dreamer_core.optimize import RegularizerConfig
from .sockets import CATEGORY, DreamerRegularizers, errors_named


class DreamerXLRegularizers(io.ComfyNode):
    """DREAMER_REGULARIZERS: weights of the terms that look at the object itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def weight(name: str, shown: str, default: float, tip: str, advanced: bool = False) -> io.Input:
            return io.Float.Input(
                name,
                display_name=shown,
                default=default,
                min=0.0,
                max=1000.0,
                step=0.01,
                tooltip=f"{tip} 0: off.",
                optional=True,
                advanced=advanced,
            )

        return io.Schema(
            node_id="DreamerXLRegularizers",
            display_name="Dreamer XL Regularizers",
            category=CATEGORY,
            description="Keeps the object smooth and its Gaussians small, apart from what the prompt asks for.",
            search_aliases=["total variation", "smoothness", "noise", "needles", "spiky splat", "regularisation"],
            inputs=[
                weight("tv_rgb", "smooth colours", 1.0, "Weight against noise in the pictures. Published: 1. 0 to 10."),
                weight("tv_disparity", "smooth surface", 1.0, "Weight against a rough surface. Published: 1. 0 to 10."),
                weight(
                    "scale", "small Gaussians", 1.0, "Weight of their mean size (world units). Published: 1. 0 to 5."
                ),
                weight("opacity", "faint Gaussians", 0.0, "Weight of the mean opacity. 0.01 to 1 with mcmc.", True),
                weight("opacity_entropy", "solid or gone", 0.0, "Weight against half-transparency. 0.01 to 1.", True),
                weight("anisotropy", "no needles", 0.0, "Weight against very long Gaussians. 0.1 to 1.", True),
                io.Float.Input(
                    "max_anisotropy",
                    display_name="needle ratio",
                    default=10.0,
                    min=1.0,
                    max=1000.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Longest over shortest axis (a ratio) from which a Gaussian counts as a needle. 4 to 20.",
                ),
            ],
            outputs=[DreamerRegularizers.Output(display_name="regularizers", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def execute(cls, **values: float) -> io.NodeOutput:
        with errors_named("Dreamer XL Regularizers"):
            return io.NodeOutput(RegularizerConfig(**values))
