"""Takes what nobody wants to see out of a splat."""

from __future__ import annotations

import torch
from comfy_api.latest import Types, io

from ..dreamer_core.optimize import CleanupConfig, CleanupReport, clean
from .host.progress import say
from .host.splat import items, pack
from .sockets import CATEGORY, errors_named


def described(report: CleanupReport) -> str:
    """What went, for the node's line of text."""
    return f"removed {report.transparent:,} transparent, {report.floaters:,} floating"


class DreamerXLCleanup(io.ComfyNode):
    """SPLAT without transparent Gaussians and floaters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLCleanup",
            display_name="Dreamer XL Clean Up",
            category=CATEGORY,
            description="Removes what is too faint to see, and small pieces that hang in the air beside the object.",
            search_aliases=["floaters", "remove floaters", "outlier removal", "prune splat", "denoise splat", "haze"],
            inputs=[
                io.Splat.Input("splat", tooltip="Any splat; every object of a batch is cleaned."),
                io.Float.Input(
                    "min_opacity",
                    display_name="faintest opacity",
                    default=0.005,
                    min=0.0,
                    max=0.99,
                    step=0.005,
                    optional=True,
                    tooltip="Fainter ones go (opacity from 0 to 1). 0.005: invisible ones, 0.05: haze too, 0: none.",
                ),
                io.Boolean.Input(
                    "floaters",
                    display_name="remove floaters",
                    default=True,
                    optional=True,
                    tooltip="Also remove groups of Gaussians that touch nothing else and show next to nothing.",
                ),
                io.Float.Input(
                    "floater_share",
                    display_name="largest floater",
                    default=0.1,
                    min=0.0,
                    max=99.0,
                    step=0.05,
                    optional=True,
                    tooltip="A loose piece goes below this percentage of what the object shows. 0.1 careful, 2 bold.",
                ),
                io.Float.Input(
                    "reach",
                    default=3.0,
                    min=0.1,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Two Gaussians touch when nearer than this times the sum of their radii. 2 to 4.",
                ),
            ],
            outputs=[io.Splat.Output(display_name="splat", tooltip="The same without what was removed.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        splat: Types.SPLAT,
        min_opacity: float = 0.005,
        floaters: bool = True,
        floater_share: float = 0.1,
        reach: float = 3.0,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Clean Up"), torch.inference_mode(False):
            config = CleanupConfig(
                min_opacity=min_opacity, floaters=floaters, floater_share=floater_share / 100, reach=reach
            )
            done = [clean(one, config) for one in items(splat)]
            report = CleanupReport(*(sum(counts) for counts in zip(*((r.transparent, r.floaters) for _, r in done))))
            say(described(report), cls.hidden.unique_id)
            return io.NodeOutput(pack([one for one, _ in done]))
