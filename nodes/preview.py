"""The viewer as a node of its own."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.cameras import turntable
from .host.images import views_image
from .host.results import PICTURE_SIZE, PICTURES, view_ui
from .host.splat import from_splat, refuse_empty
from .sockets import CATEGORY, errors_named


class DreamerXLPreview(io.ComfyNode):
    """Shows a SPLAT in the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLPreview",
            display_name="Dreamer XL Preview",
            category=CATEGORY,
            description="Shows a splat in 3D: drag to turn, scroll to zoom, right-drag to move. Nothing is saved; the "
            "download button keeps a PLY. Where the browser has no WebGL, it shows pictures.",
            search_aliases=["preview splat", "view splat", "3d viewer", "gaussian viewer", "show 3dgs"],
            is_output_node=True,
            inputs=[io.Splat.Input("splat", tooltip="Any splat; the objects of a batch are shown one at a time.")],
            outputs=[io.Splat.Output(display_name="splat", tooltip="The same splat.")],
        )

    @classmethod
    def execute(cls, splat: Types.SPLAT) -> io.NodeOutput:
        with errors_named("Dreamer XL Preview"):
            parts = refuse_empty(from_splat(splat))
            device = mm.get_torch_device()
            orbit = turntable(PICTURES, PICTURE_SIZE, elevation=15.0)
            white = torch.ones(3, device=device)
            return io.NodeOutput(splat, ui=view_ui((g, views_image(g.to(device), orbit, white)) for g in parts))
