"""The texture of a mesh, from a splat."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.meshes import READ, MeshConfig, paint_mesh
from ..dreamer_core.settings import own_settings
from .host.mesh import one_from_mesh, with_texture
from .host.progress import counting, say
from .host.splat import one_from_splat
from .sockets import CATEGORY, errors_named
from .widgets import plain_values, plain_widgets

SETTINGS = [one for one in own_settings(MeshConfig) if one.field in READ]


class DreamerXLBakeTexture(io.ComfyNode):
    """MESH and SPLAT to the same MESH with the splat's colours as its texture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLBakeTexture",
            display_name="Dreamer XL Bake Texture",
            category=CATEGORY,
            description="Paints a splat onto a mesh that ComfyUI's Decimate, Remesh or Unwrap made. Triangles and UVs "
            "stay as they are; a mesh without UVs gets some.",
            search_aliases=["bake texture", "splat to texture", "paint mesh", "transfer colours", "retopology"],
            inputs=[
                io.Mesh.Input(
                    "mesh",
                    tooltip="One object where the splat is, and as large. From Dreamer XL Mesh: with size 0 and origin "
                    "splat there.",
                ),
                io.Splat.Input("splat", tooltip="Whose colours are painted."),
                *plain_widgets(SETTINGS),
            ],
            outputs=[io.Mesh.Output(display_name="mesh", tooltip="For ComfyUI's mesh nodes and Save 3D Model.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, mesh: Types.MESH, splat: Types.SPLAT, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Bake Texture"), torch.inference_mode(False):
            config = MeshConfig(**plain_values(SETTINGS, values))
            gaussians = one_from_splat(splat).to(mm.get_torch_device())
            made, seen = paint_mesh(gaussians, one_from_mesh(mesh), config, tick=counting(config.views))
            say(f"{made.described()}, {seen:.0%} of it seen", cls.hidden.unique_id)
            return io.NodeOutput(with_texture(mesh, made))
