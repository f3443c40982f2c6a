"""Removes what nobody wants to see from a splat."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import Types, io

from ..dreamer_core.optimize import CleanupConfig, CleanupReport, clean
from ..dreamer_core.settings import Setting
from .host.progress import say
from .host.splat import items, pack, refuse_empty
from .sockets import CATEGORY, errors_named
from .widgets import plain_values, plain_widgets, settings_of


def described(report: CleanupReport) -> str:
    """What went, for the node's line of text."""
    return f"removed {report.transparent:,} transparent, {report.floaters:,} floating"


def _settings() -> list[Setting]:
    return [setting for setting in settings_of("cleanup") if setting.field != "enabled"]


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
                *plain_widgets(_settings()),
            ],
            outputs=[io.Splat.Output(display_name="splat", tooltip="The same without what was removed.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, splat: Types.SPLAT, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Clean Up"), torch.inference_mode(False):
            config = CleanupConfig(**plain_values(_settings(), values))
            done = [clean(one, config) for one in refuse_empty(items(splat))]
            report = CleanupReport(*(sum(counts) for counts in zip(*((r.transparent, r.floaters) for _, r in done))))
            say(described(report), cls.hidden.unique_id)
            return io.NodeOutput(pack([one for one, _ in done]))
