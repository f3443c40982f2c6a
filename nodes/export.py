"""Files of a splat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
from comfy.cli_args import args
from comfy_api.latest import Types, io
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..dreamer_core import __version__
from ..dreamer_core.cameras import turntable as turntable_cameras
from ..dreamer_core.files import claimed, remove_abandoned, write_atomically
from ..dreamer_core.formats import FORMATS, save_gaussians
from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.media import FILMS, check_film, contact_sheet, render_views, write_film
from .host.images import cancellable, to_pil
from .host.splat import from_splat, refuse_empty
from .sockets import CATEGORY, errors_named

TIPS = {f.suffix[1:]: f.tip for f in FORMATS if f.write is not None}
ANIMATIONS = ["none", *(suffix[1:] for suffix in FILMS)]
ELEVATION = 15.0
"""Degrees above the horizon of the pictures."""
WHITE = (1.0, 1.0, 1.0)


def recorded(prompt: Any) -> dict[str, Any] | None:
    """What goes into the file and the JSON beside it; None where ComfyUI was told to write no metadata."""
    if args.disable_metadata:
        return None
    graph = {} if prompt is None else {"prompt": prompt}
    return {"generator": "Dreamer XL", "version": __version__, **graph}


def graphs(prompt: Any, extra: dict[str, Any] | None) -> dict[str, Any]:
    """What ComfyUI's own nodes write into pictures and films: dropping one on ComfyUI loads the workflow."""
    if args.disable_metadata:
        return {}
    return {**({} if prompt is None else {"prompt": prompt}), **(extra or {})}


def png_info(entries: dict[str, Any]) -> PngInfo:
    """The entries as Save Image writes them."""
    info = PngInfo()
    for name, value in entries.items():
        info.add_text(name, json.dumps(value))
    return info


@contextmanager
def _free_name(folder: Path, name: str, counter: int) -> Iterator[tuple[str, int]]:
    """The next stem of files that nobody has, and the number to go on with; another ComfyUI here gets others."""
    remove_abandoned(folder.glob(".*"))
    for number in count(counter):
        stem = f"{name}_{number:05}_"
        with claimed(folder, stem) as ours:
            if ours and not any(folder.glob(f"{escape(stem)}.*")):
                yield stem, number + 1
                return


def _picture(gaussians: Gaussians, path: Path, info: PngInfo) -> None:
    """Four sides of the object, for clients that show no 3D."""
    device = mm.get_torch_device()
    cameras = turntable_cameras(4, 256, elevation=ELEVATION)
    views = list(cancellable(render_views(gaussians.to(device), cameras, WHITE)))
    sheet = to_pil(contact_sheet(views, 4))
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG", pnginfo=info))


def _frames(gaussians: Gaussians, count: int, size: int, bar: comfy.utils.ProgressBar) -> Iterator[Tensor]:
    """Pictures [H, W, 3] once around the object."""
    device = mm.get_torch_device()
    cameras = turntable_cameras(count, size, elevation=ELEVATION)
    for picture in cancellable(render_views(gaussians.to(device), cameras, WHITE)):
        bar.update(1)
        yield picture


class DreamerXLExport(io.ComfyNode):
    """Writes a SPLAT into ComfyUI's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLExport",
            display_name="Dreamer XL Export",
            category=CATEGORY,
            description="Saves the splat and a picture of it in the output folder, numbered as Save Image does, and if "
            "wanted a film around it. Prompt and workflow are kept in the files.",
            search_aliases=["save splat", "save ply", "export gaussian", "download splat", "3dgs", "spz", "turntable"],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Splat.Input("splat", tooltip="Any splat; a batch becomes one file per object."),
                io.String.Input(
                    "filename_prefix",
                    default="3d/dreamer-xl",
                    tooltip="Folder and beginning of the name inside the output folder; %date:yyyy-MM-dd% works.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(TIPS),
                    default="ply",
                    tooltip=" ".join(f"{name}: {tip}." for name, tip in TIPS.items()),
                ),
                io.Combo.Input(
                    "turntable",
                    options=ANIMATIONS,
                    default="none",
                    optional=True,
                    tooltip="A film once around the object beside the splat: mp4 for video, webp or gif for web pages.",
                ),
                io.Int.Input(
                    "turntable_frames",
                    default=48,
                    min=2,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Pictures of the film. 48 for webp and gif, 120 for a smooth mp4.",
                ),
                io.Int.Input(
                    "turntable_resolution",
                    default=512,
                    min=32,
                    max=4096,
                    step=2,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels per side of the film, an even number. 256 to 512 for webp and gif, 1024 for mp4.",
                ),
                io.Int.Input(
                    "turntable_fps",
                    default=24,
                    min=1,
                    max=60,
                    optional=True,
                    advanced=True,
                    tooltip="Pictures per second of the film. 12 to 30; a gif takes at most 50.",
                ),
            ],
            outputs=[io.File3DSplatAny.Output(display_name="model_3d", tooltip="The (first) file, for Preview Splat.")],
        )

    @classmethod
    def execute(
        cls,
        splat: Types.SPLAT,
        filename_prefix: str = "3d/dreamer-xl",
        format: str = "ply",
        turntable: str = "none",
        turntable_frames: int = 48,
        turntable_resolution: int = 512,
        turntable_fps: int = 24,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Export"):
            parts = refuse_empty(from_splat(splat))
            check_film(f".{turntable}", turntable_resolution, turntable_fps, ("turntable_resolution", "turntable_fps"))
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, folder_paths.get_output_directory()
            )
            prompt = getattr(cls.hidden, "prompt", None)
            kept = graphs(prompt, getattr(cls.hidden, "extra_pnginfo", None))
            place = {"subfolder": subfolder, "type": "output"}
            files, pictures, films = [], [], []
            bar = comfy.utils.ProgressBar(len(parts) * turntable_frames)
            for gaussians in parts:
                with _free_name(Path(folder), name, counter) as (stem, counter):
                    path = Path(folder) / f"{stem}.{format}"
                    save_gaussians(gaussians, path, metadata=recorded(prompt), field="splat")
                    files.append({"filename": path.name, **place})
                    _picture(gaussians, path.with_name(f"{stem}.png"), png_info(kept))
                    pictures.append({"filename": f"{stem}.png", **place})
                    if turntable != "none":
                        film = path.with_name(f"{stem}.{turntable}")
                        pictured = _frames(gaussians, turntable_frames, turntable_resolution, bar)
                        write_film(pictured, film, turntable_fps, kept)
                        films.append({"filename": film.name, **place})
            first = Types.File3D(str(Path(folder) / files[0]["filename"]), file_format=format.rpartition(".")[2])
            # The front end shows either animations or pictures, so a film takes the picture's place.
            shown = {"images": films or pictures, "animated": (bool(films),)}
            return io.NodeOutput(first, ui={"3d": files, **shown, "pictures": pictures})
