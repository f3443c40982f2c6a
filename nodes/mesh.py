"""A splat as a closed, textured mesh."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.meshes import MeshConfig, build_mesh, glb_bytes
from ..dreamer_core.settings import own_settings
from .host.mesh import to_mesh
from .host.progress import counting, say
from .host.splat import one_from_splat
from .sockets import CATEGORY, errors_named
from .widgets import plain_values, plain_widgets


class DreamerXLMesh(io.ComfyNode):
    """SPLAT to MESH, and the same as a GLB."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLMesh",
            display_name="Dreamer XL Mesh",
            category=CATEGORY,
            description="Makes a closed triangle mesh with a texture from a splat, for game engines, Blender and "
            "printers. Save 3D Model keeps it as a GLB.",
            search_aliases=[
                "splat to mesh",
                "glb",
                "textured mesh",
                "bake texture",
                "unwrap",
                "watertight",
                "export mesh",
            ],
            inputs=[
                io.Splat.Input("splat", tooltip="One object. Clean Up before removes crumbs."),
                *plain_widgets(own_settings(MeshConfig)),
            ],
            outputs=[
                io.Mesh.Output(display_name="mesh", tooltip="For ComfyUI's mesh nodes and Save 3D Model."),
                io.File3DGLB.Output(display_name="model_3d", tooltip="The same as a GLB, for Preview 3D."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, splat: Types.SPLAT, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Mesh"), torch.inference_mode(False):
            config = MeshConfig(**plain_values(own_settings(MeshConfig), values))
            gaussians = one_from_splat(splat).to(mm.get_torch_device())
            made = build_mesh(gaussians, config, tick=counting(config.views))
            say(made.described(), cls.hidden.unique_id)
            file = Types.File3D(BytesIO(glb_bytes(made)), file_format="glb")
            return io.NodeOutput(to_mesh(made), file)
