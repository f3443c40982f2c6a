"""Which other files a model file is made of: buffers, materials, textures."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..formats.ply_header import ply_header
from .gltf.document import BrokenModelError, beside, read_tree


def references(path: Path) -> list[Path]:
    """The files that are read along with a model file, where they exist: in its folder or below, nowhere else."""
    folder = Path(os.path.abspath(path)).parent.resolve()
    found: list[Path] = []
    try:
        for name in _names(path):
            file = beside(path, name) if path.suffix.lower() in (".gltf", ".glb") else _inside(folder, name)
            if file is None:
                continue
            found.append(file)
            if path.suffix.lower() == ".obj":
                found += filter(None, (_inside(folder, texture) for texture in _textures(file)))
    except OSError:
        pass  # the loader says what is wrong
    return list(dict.fromkeys(found))


def _names(path: Path) -> Iterator[str]:
    """What the file calls the others."""
    suffix = path.suffix.lower()
    if suffix in (".gltf", ".glb"):
        for kind in ("buffers", "images"):
            entries = _gltf(path).get(kind)
            for entry in entries if isinstance(entries, list) else []:
                uri = entry.get("uri") if isinstance(entry, dict) else None
                if isinstance(uri, str) and uri[:5].lower() != "data:":
                    yield uri
    elif suffix == ".obj" and path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.find(b"mtllib")
            if start >= 0:
                content.seek(start + len(b"mtllib"))
                yield content.readline().decode(errors="replace")
    elif suffix == ".ply":
        for line in ply_header(path).decode(errors="replace").splitlines():
            if (start := line.lower().find("texturefile")) >= 0:
                yield line[start + len("texturefile") :]


def _gltf(path: Path) -> dict[str, Any]:
    """The JSON of a .gltf or .glb; empty where it has none."""
    try:
        return read_tree(path)[0]
    except BrokenModelError:
        return {}


def _textures(materials: Path) -> Iterator[str]:
    """Colour textures that a .mtl names."""
    for line in materials.read_bytes().decode(errors="replace").splitlines():
        key, *name = line.split(maxsplit=1)[:2] or [""]
        if key.lower() == "map_kd":
            yield from name


def _inside(folder: Path, name: str) -> Path | None:
    """A file in or below the folder, by the names that trimesh tries."""
    name = name.strip()
    for candidate in (name, name.lstrip("/"), os.path.split(name)[-1]):
        try:
            file = (folder / candidate).resolve()
            if candidate and file.is_relative_to(folder) and file.is_file():
                return file
        except (OSError, ValueError, RuntimeError):  # no name that a file can have
            continue
    return None
