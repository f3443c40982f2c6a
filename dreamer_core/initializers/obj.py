"""Wavefront .obj: vertices with colours, polygons, texture coordinates, several materials."""

from __future__ import annotations

import codecs
import logging
import mmap
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..formats.colors import unit_colors
from .mesh import Array, Mesh, Wrap
from .mtl import Map, ObjMaterial, parse_materials, picture
from .named_files import beside
from .point_cloud import PointCloud
from .polygons import mend_fans

log = logging.getLogger(__name__)

LIBRARY = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+([^\r\n]*)")
FREE_FORM = {b"curv", b"curv2", b"surf", b"cstype"}
NONE = -1


class BrokenObjError(ValueError):
    """The file is no .obj that can be read; the message says what is wrong with it."""


class ObjFile:
    """What the lines of an .obj say."""

    def __init__(self, path: Path) -> None:
        """Errors: BrokenObjError for a line that cannot be read, OSError."""
        self.places, self.uv, self.rgb = array("d"), array("d"), array("d")
        self.corners, self.corner_uv, self.materials_of = array("q"), array("q"), array("q")
        self.fans = array("q")
        """Triangles of each polygon."""
        self.names: dict[str, int] = {"": 0}
        self.left_out: dict[str, int] = {}
        self._material = 0
        keys = {b"v": self._vertex, b"vt": self._coordinates, b"f": self._face, b"fo": self._face}
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
        for number, line in enumerate(data.splitlines(), 1):
            words = line.split(b"#", 1)[0].split() if b"#" in line else line.split()
            if not words:
                if line.startswith(b"#MRGB"):
                    self._left_out("rows of ZBrush's vertex colours (#MRGB)")
                continue
            read = keys.get(words[0])
            try:
                if read is not None:
                    read(words)
                elif words[0] == b"usemtl":
                    self._use(_text(line.split(None, 1)[1]) if len(words) > 1 else "")
                elif words[0] in (b"l", b"p") or words[0] in FREE_FORM:
                    self._left_out({b"l": "lines", b"p": "points"}.get(words[0], "free-form curves and surfaces"))
            except (ValueError, IndexError, OverflowError) as error:
                raise BrokenObjError(f"line {number:,} cannot be understood: {_text(line)[:60]!r}") from error

    def _left_out(self, what: str) -> None:
        self.left_out[what] = self.left_out.get(what, 0) + 1

    def _vertex(self, words: list[bytes]) -> None:
        """x y z, then w, or r g b, or r g b a."""
        self.places.extend((float(words[1]), float(words[2]), float(words[3])))
        if len(words) >= 7:
            missing = len(self.places) - 3 - len(self.rgb)
            if missing:
                self.rgb.extend([float("nan")] * missing)
            self.rgb.extend((float(words[4]), float(words[5]), float(words[6])))

    def _coordinates(self, words: list[bytes]) -> None:
        self.uv.extend((float(words[1]), float(words[2]) if len(words) > 2 else 0.0))

    def _face(self, words: list[bytes]) -> None:
        """A polygon as triangles around its first corner; negative numbers count back from the last line."""
        places, coordinates = len(self.places) // 3, len(self.uv) // 2
        corners: list[tuple[int, int]] = []
        for word in words[1:]:
            parts = word.split(b"/")
            v = int(parts[0])
            t = int(parts[1]) if len(parts) > 1 and parts[1] else 0
            if v == 0 or v < -places or t < -coordinates:
                raise ValueError("lines are counted from 1, and back to the first")
            corners.append((v - 1 if v > 0 else places + v, t - 1 if t > 0 else coordinates + t if t < 0 else NONE))
        if len(corners) > 2:
            self.fans.append(len(corners) - 2)
        for i in range(1, len(corners) - 1):
            for v, t in (corners[0], corners[i], corners[i + 1]):
                self.corners.append(v)
                self.corner_uv.append(t)
            self.materials_of.append(self._material)

    def _use(self, name: str) -> None:
        self._material = self.names.setdefault(name, len(self.names))

    @property
    def colors(self) -> Array | None:  # [V, 3] in [0, 1]
        """Of vertices; white where some have none."""
        if not self.rgb:
            return None
        rgb = np.frombuffer(self.rgb, np.float64)
        rgb = np.append(rgb, np.full(len(self.places) - len(rgb), np.nan)).reshape(-1, 3)
        return np.where(np.isnan(rgb), 1.0, unit_colors(rgb))


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip()


def material_files(path: Path) -> Iterator[tuple[str, Path | None]]:
    """The .mtl files that an .obj names, and where they are. A line may name one with spaces, or several."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        lines = [_text(found[1]) for found in LIBRARY.finditer(content)]
    for line in dict.fromkeys(lines):
        whole = beside(path, line)
        for name in [line] if whole is not None or len(line.split()) < 2 else line.split():
            yield name, whole or beside(path, name)


def read_obj(path: Path, field: str) -> list[Mesh | PointCloud]:
    """The parts of an .obj: a mesh for each of its materials, or its points. Says what is left out or missing.

    Errors: BrokenObjError, OSError; InputError for a face that names no vertex.
    """
    file = ObjFile(path)
    for what, count in file.left_out.items():
        log.warning("%s: %s are left out (%s)", path, what, f"{count:,}")
    places = np.array(file.places, dtype=np.float64).reshape(-1, 3)
    colors = file.colors
    if not len(places):
        return []
    if not file.corners:
        return [PointCloud(torch.from_numpy(places), None if colors is None else torch.from_numpy(colors).float())]
    corners = np.array(file.corners, dtype=np.int64).reshape(-1, 3)
    corner_uv = np.array(file.corner_uv, dtype=np.int64).reshape(-1, 3)
    uv = np.array(file.uv, dtype=np.float64).reshape(-1, 2)
    for what, used, there in (("vertex", corners, len(places)), ("texture coordinate", corner_uv, len(uv))):
        low = 0 if what == "vertex" else NONE
        if used.min() < low or used.max() >= there:
            got = f"{path} with a face that names {what} {int(used.max()) + 1} of {there}"
            raise InputError(field, "faces between the vertices of the file", got)
    mend_fans(path, places, np.array(file.fans, dtype=np.int64), corners, corner_uv)
    materials = _materials(path)
    numbers = np.array(file.materials_of, dtype=np.int64)
    whole = (corner_uv >= 0).all(axis=1)
    parts: list[Mesh | PointCloud] = []
    for name, number in file.names.items():
        material = materials.get(name)
        in_use = bool((numbers == number).any())
        if material is None and name and in_use:
            log.warning("%s: its material %r is not there", path, name[:80])
        for told in material.simplified() if material is not None and in_use else ():
            log.warning("%s: material %r: %s", path, name[:80], told)
        image = None if material is None else picture(material, path, field)
        for textured in (True, False):
            mine = (numbers == number) & (whole == textured)
            if mine.any():
                image_here = image if textured else None
                parts.append(_mesh(places, corners[mine], colors, uv, corner_uv[mine], material, image_here))
    return parts


def _materials(path: Path) -> dict[str, ObjMaterial]:
    found: dict[str, ObjMaterial] = {}
    for name, file in material_files(path):
        if file is None:
            log.warning("%s: its file of materials %r is not there", path, name[:80])
        else:
            found = {**parse_materials(file), **found}
    return found


def _mesh(
    places: Array,
    corners: NDArray[np.int64],
    colors: Array | None,
    uv: Array,
    corner_uv: NDArray[np.int64],
    material: ObjMaterial | None,
    image: NDArray[np.uint8] | None,
) -> Mesh:
    """Triangles of one material; with a texture every pair of place and coordinates is a vertex of its own."""
    if image is None:
        used, faces = np.unique(corners, return_inverse=True)
        moved = None
    else:
        pairs = corners * (len(uv) + 1) + corner_uv
        found, faces = np.unique(pairs, return_inverse=True)
        used = found // (len(uv) + 1)
        moved = _moved(uv[found % (len(uv) + 1)], material)
    opacity = 1.0 if material is None else material.opacity
    named = material.color or material.holes if material is not None else None
    wrap: Wrap = "clamp" if named is not None and named.clamp else "repeat"
    seen_through = opacity < 1 or (material is not None and material.holes is not None)
    return Mesh(
        places[used],
        faces.reshape(-1, 3).astype(np.int64),
        texture=image,
        uv=moved,
        vertex_rgb=None if colors is None else colors[used],
        rgb=None if material is None or material.rgb is None else np.asarray(material.rgb, dtype=np.float64),
        wrap=(wrap, wrap),
        alpha="blend" if seen_through and opacity > 0 else "opaque",
        opacity=opacity,
    )


def _moved(uv: Array, material: ObjMaterial | None) -> Array:
    """Coordinates after a texture's scale and offset, from the top of the picture."""
    named = (material.color or material.holes if material is not None else None) or Map("")
    u = uv[:, 0] * named.scale[0] + named.offset[0]
    v = uv[:, 1] * named.scale[1] + named.offset[1]
    return np.stack([u, 1 - v], axis=-1)
