"""A multi-view adapter as a patch of the MODEL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..dreamer_core.errors import InputError
from ..dreamer_core.teachers.multiview.cameras import AZIMUTHS
from ..dreamer_core.teachers.multiview.files import EXPECTED, PUBLISHED, REMEDY
from .host.multiview import attach
from .host.sdxl import check_model
from .host.starter import ADAPTER
from .loader import STARTER
from .sockets import CATEGORY, errors_named, validated

NAME = "Dreamer XL Multi-View"
FOLDER = "model_patches"
DEFAULT = ", ".join(f"{a:g}" for a in AZIMUTHS)
MOST = 12


def parse_degrees(text: str, field: str) -> tuple[float, ...]:
    """Numbers separated by commas. Errors: InputError naming `field`."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if any(not abs(a) <= 360 for a in found):
        raise InputError(field, "degrees from -360 to 360, separated by commas", repr(text), f"e.g. {DEFAULT}")
    return found


def parse_azimuths(text: str) -> tuple[float, ...]:
    """Degrees of the views of a group. Errors: InputError."""
    expected, found = f"2 to {MOST} different azimuths", parse_degrees(text, "azimuths")
    turned = {round(a % 360.0, 3) for a in found}
    if not 2 <= len(found) <= MOST or len(turned) < len(found):
        raise InputError("azimuths", expected, text, f"e.g. {DEFAULT}")
    return found


class DreamerXLMultiView(io.ComfyNode):
    """MODEL with a multi-view adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLMultiView",
            display_name=NAME,
            category=CATEGORY,
            description="Lets the MODEL draw several views of one object at once (MV-Adapter), against second faces. "
            "Its LoRAs and patches keep working, and so do samplers: give them one empty latent for each azimuth.",
            search_aliases=["mv-adapter", "mvadapter", "multi view", "multiview", "janus", "two faces"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL MODEL, with its LoRAs."),
                io.Combo.Input(
                    "adapter",
                    options=[*sorted({PUBLISHED, *folder_paths.get_filename_list(FOLDER)}), STARTER],
                    default=PUBLISHED,
                    tooltip=f"A file in the folder models/{FOLDER}. For SDXL: {PUBLISHED} from "
                    f"Hugging Face, huanngzh/mv-adapter. {STARTER}: that of the built-in checkpoint.",
                ),
                io.String.Input(
                    "azimuths",
                    default=DEFAULT,
                    optional=True,
                    advanced=True,
                    tooltip="Degrees of the views that a sampler's batch shows, in order; 0 is the front, 90 looks "
                    f"from +X. Published: {DEFAULT}.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For a sampler, or for Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(cls, azimuths: str | None = DEFAULT) -> bool | str:
        return validated(cls, {"azimuths": azimuths}, lambda: parse_azimuths(azimuths or DEFAULT))

    @classmethod
    def execute(cls, model: Any, adapter: str, azimuths: str = DEFAULT) -> io.NodeOutput:
        with errors_named(NAME):
            check_model(model)
            path = str(ADAPTER) if adapter == STARTER else folder_paths.get_full_path(FOLDER, adapter)
            if path is None:
                got = f"{Path(adapter).name}, which is not in models/{FOLDER}"
                raise InputError("adapter", EXPECTED, got, REMEDY)
            return io.NodeOutput(attach(model, path, parse_azimuths(azimuths)))
