"""What a node shows in the viewer: a PLY per object and pictures of them, in ComfyUI's temp folder.

As with ComfyUI's own previews, `/view` gives the files out until the server restarts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ...dreamer_core.formats import write_compact_ply
from ...dreamer_core.gaussians import Gaussians
from ...dreamer_core.media import contact_sheet, write_png
from .identity import Key

FOLDER = "dreamer_xl"
PICTURES, COLUMNS = 4, 2
PICTURE_SIZE = 256


def view_ui(shown: Iterable[tuple[Gaussians, Tensor]]) -> dict[str, list[dict[str, Any]]]:
    """The `ui` of a node with a viewer, from world-frame objects with views [F, H, W, 3] for browsers without 3D.

    One entry per object: its `file` and `pictures` as `/view` takes them, and the number of Gaussians. The files are
    named by their content, so that nobody else's result ever appears under an old name. Nothing is shown where they
    cannot be written: a full disk must not cost the result.
    """
    try:
        return {"dreamer_xl_view": [_entry(gaussians, views) for gaussians, views in shown]}
    except OSError as error:
        logging.warning("Dreamer XL: the viewer shows nothing, its files could not be written (%s)", error)
        return {}


def _entry(gaussians: Gaussians, views: Tensor) -> dict[str, Any]:
    key = Key()
    for name, tensor in gaussians.tensors():
        key.text(name).tensor(tensor.detach())
    folder, stem = Path(folder_paths.get_temp_directory()) / FOLDER, key.hexdigest()[:24]
    splat, picture = folder / f"{stem}.ply", folder / f"{stem}.png"
    if not splat.is_file():
        write_compact_ply(gaussians, splat)
    if not picture.is_file():
        write_png(contact_sheet(_pictures(views), COLUMNS), picture)

    def place(path: Path) -> dict[str, str]:
        return {"filename": path.name, "subfolder": FOLDER, "type": "temp"}

    return {"file": place(splat), "pictures": place(picture), "count": len(gaussians)}


def _pictures(views: Tensor) -> Tensor:  # [<= PICTURES, PICTURE_SIZE, PICTURE_SIZE, 3]
    """Evenly spaced ones of the views, small."""
    count = min(PICTURES, views.shape[0])
    chosen = views[[i * views.shape[0] // count for i in range(count)]].float().cpu().movedim(-1, 1)
    small = torch.nn.functional.interpolate(chosen, (PICTURE_SIZE, PICTURE_SIZE), mode="bilinear", antialias=True)
    return small.movedim(1, -1)
