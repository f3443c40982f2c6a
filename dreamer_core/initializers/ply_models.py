"""Point clouds and meshes of a PLY, as scanners and modellers write them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..formats.colors import color_names, unit_colors
from ..formats.ply_elements import Columns, Lists, PlyFile
from ..formats.ply_syntax import BrokenPlyError
from .mesh import Array, Mesh
from .named_files import beside
from .pictures import decoded
from .point_cloud import PointCloud
from .polygons import mend_fans

log = logging.getLogger(__name__)

Column = NDArray[Any]
CORNERS = ("vertex_indices", "vertex_index")
COORDINATES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
UNUSED = {"nx", "ny", "nz", "alpha", "diffuse_alpha", "flags"}
"""Columns that say nothing about places or colours."""
TEXTURE = re.compile(r"texturefile\s+(.+)", re.IGNORECASE)


def read_ply_model(path: Path, field: str) -> list[Mesh | PointCloud]:
    """The parts of a PLY: one mesh for each of its textures, or its points. Says what is not used.

    Errors: BrokenPlyError, OSError; InputError for a face that names no vertex.
    """
    file = PlyFile(path)
    vertices, _ = _split(file.read("vertex"))
    missing = [a for a in "xyz" if a not in vertices]
    if missing:
        raise BrokenPlyError(f"its vertices have no {', '.join(missing)}" if vertices else "it has no vertices")
    places = np.stack([vertices[a].astype(np.float64) for a in "xyz"], axis=-1)
    colors = color_names(vertices)
    rgb = unit_colors(np.stack([vertices[name] for name in colors], axis=-1)) if colors else None
    uv = next((pair for pair in COORDINATES if all(name in vertices for name in pair)), ())
    _say_unused(file, {*"xyz", *colors, *uv}, list(vertices))
    faces = _Faces(file)
    if not faces.count:
        return [PointCloud(torch.from_numpy(places), None if rgb is None else torch.from_numpy(rgb).float())]
    if faces.corners.min() < 0 or faces.corners.max() >= len(places):
        got = f"{path} with a face that names vertex {int(faces.corners.max())} of {len(places)}"
        raise InputError(field, "faces between the vertices of the file", got)
    faces.mend(path, places)
    flat = np.stack([vertices[name].astype(np.float64) for name in uv], axis=-1) if uv else None
    return list(_meshes(faces, places, rgb, flat, _textures(file, path, field)))


def _say_unused(file: PlyFile, used: set[str], columns: list[str]) -> None:
    rest = [name for name in columns if name not in used and name not in UNUSED]
    others = [e.name for e in file.header.elements if e.count and e.name not in ("vertex", "face", "tristrips")]
    for what, names in (("attributes", rest), ("elements", others)):
        if names:
            log.warning("%s: %s that are not used: %s", file.path, what, ", ".join(names)[:160])


def _split(columns: Columns) -> tuple[dict[str, Column], dict[str, Lists]]:
    """Numbers and lists of an element."""
    numbers = {name: c for name, c in columns.items() if not isinstance(c, Lists)}
    return numbers, {name: c for name, c in columns.items() if isinstance(c, Lists)}


def _textures(file: PlyFile, path: Path, field: str) -> list[NDArray[np.uint8] | None]:
    """Pictures that the header names, in its order; None, with a line, for one that is not there."""
    found: list[NDArray[np.uint8] | None] = []
    for comment in file.header.comments:
        if (named := TEXTURE.match(comment)) is None:
            continue
        picture = beside(path, named[1])
        if picture is None:
            log.warning("%s: its texture %r is not there; read without", path, named[1][:80])
            found.append(None)
            continue
        with picture.open("rb") as content:
            found.append(decoded(content, named[1][:80], path, field))
    return found


class _Faces:
    """Triangles of a PLY's polygons and strips, and what is stored with each."""

    def __init__(self, file: PlyFile) -> None:
        numbers, lists = _split(file.read("face"))
        polygons = next((lists[name] for name in CORNERS if name in lists), None)
        whole = [name for name, values in lists.items() if values.values.dtype.kind in "iu"]
        if polygons is None and len(whole) == 1:  # under a name of its own
            polygons = lists[whole[0]]
        elif polygons is None and lists:
            log.warning("%s: faces whose corners are none of %s: no triangles are read", file.path, ", ".join(lists))
        polygon, corners, self.slots = _fans(polygons) if polygons is not None else _none()
        strips = _split(file.read("tristrips"))[1]
        for strip in strips.values():
            corners = np.concatenate([corners, _strips(strip)])
        self.corners = corners
        self.count = len(corners)
        colors = color_names(numbers)
        self.rgb: Array | None = None
        if colors and self.count and len(polygon) == self.count:
            self.rgb = unit_colors(np.stack([numbers[name] for name in colors], axis=-1))[polygon]
        self.texture = numbers["texnumber"][polygon] if "texnumber" in numbers and len(polygon) == self.count else None
        self._polygons, self._polygon, self._uv = polygons, polygon, lists.get("texcoord")
        self.uv: Array | None = None
        """Of the corners [F, 3, 2], once `mend` knows where they lie."""

    def mend(self, path: Path, places: Array) -> None:
        """Cut polygons that are not convex as they lie in `places` [V, 3]."""
        sizes = np.zeros(0, np.int64) if self._polygons is None else np.maximum(self._polygons.lengths - 2, 0)
        mend_fans(path, places, sizes, self.corners, self.slots)
        self.uv = self._corner_uv(self._uv, self._polygons, self._polygon)

    def _corner_uv(self, uv: Lists | None, polygons: Lists | None, polygon: NDArray[np.int64]) -> Array | None:
        """Coordinates [F, 3, 2] that are stored with faces, NaN where a face has none."""
        if uv is None or polygons is None or len(polygon) != self.count:
            return None
        whole = uv.lengths == 2 * polygons.lengths
        start = np.cumsum(uv.lengths) - uv.lengths
        at = start[polygon][:, None] + 2 * self.slots
        at = np.where(whole[polygon][:, None], at, -1)
        values = np.append(uv.values.astype(np.float64), [np.nan, np.nan])
        return np.stack([values[at], values[np.where(at < 0, at, at + 1)]], axis=-1)


def _none() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros(0, np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64)


def _fans(polygons: Lists) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Triangles around the first corner: which polygon [F], its vertices [F, 3], their places in the polygon [F, 3]."""
    per = np.maximum(polygons.lengths - 2, 0)
    polygon = np.repeat(np.arange(len(polygons)), per)
    nth = np.arange(len(polygon)) - np.repeat(np.cumsum(per) - per, per)
    slots = np.stack([np.zeros_like(nth), nth + 1, nth + 2], axis=-1)
    start = np.cumsum(polygons.lengths) - polygons.lengths
    values = polygons.values.astype(np.int64)
    return polygon, values[start[polygon][:, None] + slots] if len(polygon) else np.zeros((0, 3), np.int64), slots


def _strips(strips: Lists) -> NDArray[np.int64]:
    """Triangles of strips; -1 begins a new one."""
    found = []
    ends = np.cumsum(strips.lengths)
    for start, end in zip(ends - strips.lengths, ends):
        values = strips.values[start:end].astype(np.int64)
        for run in np.split(values, np.flatnonzero(values < 0)):
            run = run[run >= 0]
            if len(run) >= 3:
                i = np.arange(len(run) - 2)
                odd = i % 2
                found.append(np.stack([run[i], run[i + 1 + odd], run[i + 2 - odd]], axis=-1))
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def _meshes(
    faces: _Faces, places: Array, rgb: Array | None, uv: Array | None, textures: list[NDArray[np.uint8] | None]
) -> Iterator[Mesh]:
    """One mesh where coordinates belong to vertices; where they belong to corners, one for each texture."""
    if faces.uv is None or not any(t is not None for t in textures):
        texture = textures[0] if textures and uv is not None else None
        yield Mesh(places, faces.corners, texture=texture, uv=_from_top(uv), vertex_rgb=rgb, face_rgb=faces.rgb)
        return
    numbers = np.zeros(faces.count, np.int64) if faces.texture is None else faces.texture.astype(np.int64)
    numbers = np.where(np.isfinite(faces.uv).all(axis=(1, 2)) & (numbers >= 0) & (numbers < len(textures)), numbers, -1)
    for number in np.unique(numbers):
        mine = numbers == number
        flat = faces.corners[mine].reshape(-1)
        yield Mesh(
            places[flat],
            np.arange(len(flat)).reshape(-1, 3),
            texture=None if number < 0 else textures[number],
            uv=None if number < 0 else _from_top(faces.uv[mine].reshape(-1, 2)),
            vertex_rgb=None if rgb is None else rgb[flat],
            face_rgb=None if faces.rgb is None else faces.rgb[mine],
        )


def _from_top(uv: Array | None) -> Array | None:
    """Coordinates that count from the bottom of the picture, from its top."""
    return None if uv is None else np.stack([uv[:, 0], 1 - uv[:, 1]], axis=-1)
