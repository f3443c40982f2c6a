"""Which other files a model file is made of: buffers, materials, textures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..formats.ply_elements import PlyFile
from ..formats.ply_syntax import BrokenPlyError
from .gltf.document import BrokenModelError, read_tree
from .mtl import parse_materials
from .named_files import beside
from .obj import material_files
from .ply_models import TEXTURE


def references(path: Path) -> list[Path]:
    """The files that are read along with a model file, where they exist: in its folder or below, nowhere else."""
    kinds = {".gltf": _of_gltf, ".glb": _of_gltf, ".obj": _of_obj, ".ply": _of_ply}
    found: list[Path | None] = []
    kind = kinds.get(path.suffix.lower())
    with suppress(OSError, BrokenModelError, BrokenPlyError):  # the loader says what is wrong
        found += [] if kind is None else kind(path)
    return list(dict.fromkeys(file for file in found if file is not None))


def _of_gltf(path: Path) -> Iterator[Path | None]:
    tree = read_tree(path, embedded=False)[0]
    for kind in ("buffers", "images"):
        entries = tree.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            uri = entry.get("uri") if isinstance(entry, dict) else None
            if isinstance(uri, str) and uri[:5].lower() != "data:":
                yield beside(path, uri, encoded=True)


def _of_obj(path: Path) -> Iterator[Path | None]:
    for _, materials in material_files(path):
        if materials is None:
            continue
        yield materials
        for material in parse_materials(materials).values():
            for texture in (material.color, material.holes):
                if texture is not None and texture.name:
                    yield texture.file(materials)


def _of_ply(path: Path) -> Iterator[Path | None]:
    for comment in PlyFile(path).header.comments:
        if named := TEXTURE.match(comment):
            yield beside(path, named[1])
