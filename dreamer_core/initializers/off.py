""".off meshes (Geomview): vertices with colours or coordinates before them in the name, polygons with colours."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..formats.colors import unit_colors
from .mesh import Array, Mesh
from .point_cloud import PointCloud
from .polygons import mend_fans

log = logging.getLogger(__name__)

KIND = re.compile(r"(?P<st>ST)?(?P<c>C)?(?P<n>N)?(?P<four>4)?(?P<any>n)?OFF\s*(?P<rest>.*)", re.DOTALL)


class BrokenOffError(ValueError):
    """The file is no .off that can be read; the message says what is wrong with it."""


def read_off(path: Path, field: str) -> list[Mesh | PointCloud]:
    """The mesh or the points of an .off. Errors: BrokenOffError, OSError; InputError for a face without vertices."""
    lines = [line for raw in path.read_bytes().splitlines() if (line := raw.split(b"#", 1)[0].strip())]
    kind = KIND.fullmatch(lines[0].decode("latin-1")) if lines else None
    if kind is None or kind["four"] or kind["any"] or kind["rest"].lower().startswith("binary"):
        got = lines[0].decode("latin-1")[:40] if lines else ""
        raise BrokenOffError(f"it begins with {got!r}, where OFF, COFF, NOFF or STOFF in ASCII are read")
    body = ([kind["rest"].encode("latin-1")] if kind["rest"] else []) + lines[1:]
    try:
        count, polygons = (int(word) for word in body[0].split()[:2])
        if count < 0 or polygons < 0 or count + polygons > len(body) - 1:
            raise BrokenOffError(f"it declares {count:,} vertices and {polygons:,} faces in {len(body) - 1:,} lines")
        table = [list(map(float, row.split())) for row in body[1 : 1 + count]]
        places = np.array([row[:3] for row in table], dtype=np.float64).reshape(-1, 3)
        start = 3 + 3 * bool(kind["n"])
        rgb = np.array([row[start : start + 4] for row in table]) if kind["c"] and table else None
        used = start + 4 * bool(kind["c"]) + 2 * bool(kind["st"])
        rows = [row.split() for row in body[1 + count : 1 + count + polygons]]
        sizes, (faces, face_rgb) = [int(row[0]) for row in rows], _faces(rows)
    except (ValueError, IndexError, OverflowError) as error:
        if isinstance(error, BrokenOffError):
            raise
        raise BrokenOffError(f"a line that cannot be understood ({str(error)[:80]})") from error
    # Whole colours may all be small; an opacity of 255 tells what they count up to.
    colors = None if rgb is None or rgb.ndim < 2 or rgb.shape[1] < 3 else unit_colors(rgb)[:, :3]
    if any(len(row) > used for row in table):
        log.warning("%s: numbers of vertices that its first line does not announce are not used", path)
    if any(len(row) == 2 + size for row, size in zip(rows, sizes)):
        log.warning("%s: colours of faces as indices of a map are not used", path)
    if kind["st"]:
        log.warning("%s: texture coordinates are not used, an .off names no texture", path)
    if not len(faces):
        return [PointCloud(torch.from_numpy(places), None if colors is None else torch.from_numpy(colors).float())]
    if faces.min() < 0 or faces.max() >= len(places):
        got = f"{path} with a face that names vertex {int(faces.max())} of {len(places)}"
        raise InputError(field, "faces between the vertices of the file", got)
    mend_fans(path, places, np.array([max(n - 2, 0) for n in sizes], dtype=np.int64), faces)
    return [Mesh(places, faces, vertex_rgb=colors, face_rgb=face_rgb)]


def _faces(rows: list[list[bytes]]) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]], Array | None]:
    """Triangles around the first corner, and their colours; grey where only some have one."""
    triangles: list[tuple[int, int, int]] = []
    colors: list[list[float]] = []
    whole = True
    for row in rows:
        size = int(row[0])
        corners = [int(word) for word in row[1 : 1 + size]]
        if size < 0 or len(corners) < size:
            raise ValueError(b" ".join(row)[:40].decode("latin-1"))
        said = row[1 + size : 4 + size]
        whole &= all(b"." not in word for word in said)
        color = [float(word) for word in said] if len(said) == 3 else [float("nan")] * 3
        for i in range(1, size - 1):
            triangles.append((corners[0], corners[i], corners[i + 1]))
            colors.append(color)
    faces = np.array(triangles, dtype=np.int64).reshape(-1, 3)
    rgb = np.array(colors, dtype=np.float64).reshape(-1, 3)
    known = np.asarray(np.isfinite(rgb).all(axis=1))
    if not known.any():
        return faces, None
    unit = np.where(known[:, None], unit_colors(rgb.astype(np.float64) if not whole else _bytes(rgb)), 0.5)
    return faces, unit


def _bytes(rgb: Array) -> Array:
    """Whole numbers, which count up to 255 however small they are."""
    if np.nanmax(rgb) > 255:
        return rgb
    return rgb / 255.0
