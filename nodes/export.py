"""Files of a splat."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management as mm
import folder_paths
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.cameras import turntable
from ..dreamer_core.errors import InputError
from ..dreamer_core.formats import write_ply
from ..dreamer_core.gaussians import Gaussians
from .host.images import contact_sheet, to_pil, views_image
from .host.splat import from_splat
from .sockets import CATEGORY, errors_named

WRITERS = {"ply": write_ply}
"""Format -> function (Gaussians, path) that writes atomically."""


def _picture(gaussians: Gaussians, path: Path) -> None:
    """Four sides of the object, for clients that show no 3D."""
    device = mm.get_torch_device()
    images = views_image(gaussians.to(device), turntable(4, 256, elevation=15.0), torch.ones(3, device=device))
    temporary = path.with_suffix(".tmp")
    to_pil(contact_sheet(images, 4)).save(temporary, format="PNG")
    temporary.replace(path)


class DreamerXLExport(io.ComfyNode):
    """Writes a SPLAT into ComfyUI's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLExport",
            display_name="Dreamer XL Export",
            category=CATEGORY,
            description="Saves the splat and a picture of it in the output folder, numbered as Save Image does.",
            search_aliases=["save splat", "save ply", "export gaussian", "download splat", "3dgs"],
            is_output_node=True,
            inputs=[
                io.Splat.Input("splat", tooltip="Any splat; a batch becomes one file per object."),
                io.String.Input(
                    "filename_prefix",
                    default="3d/dreamer-xl",
                    tooltip="Folder and beginning of the name inside the output folder; %date:yyyy-MM-dd% works.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(WRITERS),
                    default="ply",
                    tooltip="ply: the standard 3DGS file, with all spherical harmonics. Opens everywhere.",
                ),
            ],
            outputs=[io.File3DSplatAny.Output(display_name="model_3d", tooltip="The (first) file, for Preview Splat.")],
        )

    @classmethod
    def execute(cls, splat: Types.SPLAT, filename_prefix: str = "3d/dreamer-xl", format: str = "ply") -> io.NodeOutput:
        with errors_named("Dreamer XL Export"):
            parts = from_splat(splat)
            if not parts or any(len(g) == 0 for g in parts):
                raise InputError("splat", "at least one Gaussian", "an empty splat")
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, folder_paths.get_output_directory()
            )
            files, images = [], []
            for i, gaussians in enumerate(parts):
                stem = f"{name}_{counter + i:05}_"
                path = Path(folder) / f"{stem}.{format}"
                WRITERS[format](gaussians, path)
                _picture(gaussians, path.with_suffix(".png"))
                place = {"subfolder": subfolder, "type": "output"}
                files.append({"filename": path.name, **place})
                images.append({"filename": f"{stem}.png", **place})
            first = Types.File3D(str(Path(folder) / files[0]["filename"]), file_format=format)
            return io.NodeOutput(first, ui={"3d": files, "images": images})
