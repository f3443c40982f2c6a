"""The standard 3DGS PLY: means, unactivated opacities and scales, wxyz quaternions, SH.

Files are in the frame that 3DGS trainers, viewers and ComfyUI use (X right, Y down, Z forward), `Gaussians` in our
world; `dreamer_core.frames` lies between them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians
from .bounds import require_memory
from .compressed_ply import is_compressed, read_compressed_ply
from .file_frame import check_file, to_file_frame, to_world
from .format import Format
from .ply_elements import Lists, PlyFile
from .ply_header import comment_lines, property_names, read_comments
from .ply_rows import gaussians_of
from .ply_syntax import BrokenPlyError

log = logging.getLogger(__name__)

VERTICAL = re.compile(r"vertical axis:\s*([xyz])", re.IGNORECASE)
"""What nerfstudio writes of a scene that is not turned."""
CAMERA_ELEMENTS = ("extrinsic", "intrinsic", "image_size", "frame", "disparity", "color_space", "version")
"""What SHARP writes of its picture."""
BINARY, ASCII = 6, 40
"""Memory per byte of a file, rounded up: its columns, the Gaussians and a copy in another frame; words of text."""
REST = 45
"""Columns of higher SH in the layout that some readers expect, whatever the degree."""


def write_ply(
    gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
) -> None:
    """Write all Gaussians of our world as a binary PLY of 62 floats each, atomically; metadata as comments.

    It is the layout of the first 3DGS trainer at degree 3, normals and unused SH as zeros: readers that do not look at
    the header (SIBR, Unity's importer) take no other. Errors: InputError for no Gaussians, NaN or inf.
    """
    _write(gaussians, path, metadata, field, fixed=True)


def write_compact_ply(
    gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
) -> None:
    """The same without normals and without SH that are not there: 14 floats at degree 0. Errors: InputError."""
    _write(gaussians, path, metadata, field, fixed=False)


def _write(gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None, field: str, fixed: bool) -> None:
    g = to_file_frame(gaussians, field)
    n = len(g)
    rest = g.shN.transpose(1, 2).flatten(1)
    if fixed:
        per_channel = torch.nn.functional.pad(g.shN.transpose(1, 2), (0, REST // 3 - g.shN.shape[1]))
        rest = per_channel.flatten(1)
    normals = torch.zeros(n, 3 if fixed else 0)
    table = torch.cat([g.means, normals, g.sh0[:, 0], rest, g.logit_opacities[:, None], g.log_scales, g.quats], dim=1)
    names = ["x", "y", "z", *(("nx", "ny", "nz") if fixed else ()), *(f"f_dc_{i}" for i in range(3))]
    names += [f"f_rest_{i}" for i in range(rest.shape[1])]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    head = b"ply\nformat binary_little_endian 1.0\n" + comment_lines(metadata or {}) + f"element vertex {n}\n".encode()
    head += "".join(f"property float {name}\n" for name in names).encode() + b"end_header\n"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(head)
            file.write(table.numpy().astype("<f4", copy=False).data)

    write_atomically(path, write)


def read_ply(path: Path, field: str = "FILE") -> Gaussians:
    """The Gaussians of a 3DGS PLY, compressed or not, in our world. `field` names the option in errors.

    Errors: InputError for a missing or truncated file, another format, or a PLY without Gaussian attributes.
    """
    check_file(path, field, "a .ply file")
    try:
        file = PlyFile(path)
        require_memory((BINARY if file.header.order else ASCII) * file.size, path, field, "use fewer Gaussians")
        if is_compressed(file):
            return to_world(read_compressed_ply(file, field), path, field)
        vertices = file.read("vertex")
        for told in _not_heeded(file):
            log.warning("%s: %s", path, told)
    except OSError as error:
        raise InputError(field, "a .ply file that can be read", f"{path} ({error.strerror})") from error
    except BrokenPlyError as error:
        raise InputError(field, "a complete PLY file", f"{path}, which cannot be read ({error})") from error
    rows: dict[str, np.ndarray[Any, Any]] = {k: v for k, v in vertices.items() if not isinstance(v, Lists)}
    return to_world(gaussians_of(rows, path, field), path, field)


def _not_heeded(file: PlyFile) -> Iterator[str]:
    """What a splat's header declares and is not used."""
    for comment in file.header.comments:
        if (axis := VERTICAL.fullmatch(comment)) is not None and axis[1].lower() != "y":
            yield f"it declares {axis[1].lower()} as its vertical axis and is read with Y down all the same (see --up)"
    others = [element.name for element in file.header.elements if element.count and element.name != "vertex"]
    space = file.read("color_space").values() if "color_space" in others else ()
    if any(np.any(values) for values in space if not isinstance(values, Lists)):
        yield "it declares another colour space than sRGB, and its colours are read as sRGB"
    if others := [name for name in others if name not in CAMERA_ELEMENTS]:
        yield f"elements that are not used: {', '.join(others)[:160]}"
    if element := file.header.element("vertex"):
        lists = [p.name for p in element.properties if p.counted is not None]
        if lists:
            yield f"lists that are not used: {', '.join(lists)[:160]}"


def holds_gaussians(path: Path) -> bool:
    """Whether a PLY's header declares attributes of Gaussians rather than of points or a mesh."""
    return bool(property_names(path) & {"f_dc_0", "scale_0", "rot_0"})


PLY = Format(
    ".ply",
    "PLY, 3DGS",
    "the standard 3DGS file, exact, opens everywhere",
    read=read_ply,
    write=write_ply,
    recognise=holds_gaussians,
    metadata=read_comments,
)
COMPACT_PLY = Format(
    ".compact.ply",
    "PLY, 3DGS",
    "the same without columns that are not used, mostly a quarter of it; not for SIBR or Unity",
    write=write_compact_ply,
    recognise=lambda path: False,  # by its content it is a PLY as the others
)
