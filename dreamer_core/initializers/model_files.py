"""Reads point clouds and meshes: PLY, OBJ, GLB, GLTF, STL, OFF."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..formats.bounds import require_memory
from .gltf import read_gltf
from .mesh import Array, Mesh
from .obj import read_obj
from .off import read_off
from .ply_models import read_ply_model
from .point_cloud import PointCloud
from .stl import read_stl

log = logging.getLogger(__name__)

MODEL_UP = {".glb": "+y", ".gltf": "+y", ".obj": "+y", ".ply": "+z", ".stl": "+z", ".off": "+z"}
"""What `auto` takes for up. glTF demands Y up and the front on +Z; the rest is custom: Blender writes OBJ so, and STL,
PLY and OFF mostly come from tools whose Z is up and whose front is -Y."""
MODELS = tuple(MODEL_UP)
"""Lower-case suffixes of the files that `read_points` reads."""
BYTES_PER_BYTE = {".obj": 14, ".off": 26, ".gltf": 16, ".glb": 16, ".ply": 20, ".stl": 10}
"""Memory that reading takes per byte of the file, rounded up from measurements."""


def read_points(path: Path, count: int, generator: torch.Generator, field: str = "FILE") -> PointCloud:
    """The points of a cloud, or `count` points on the surfaces of a mesh, with colours, along the file's own axes.

    A scene's nodes are placed by their transforms. Colours come from the texture, the vertices, the faces or the
    material. Errors: InputError for a missing, broken, empty or too large file.
    """
    check_file(path, field)
    meshes: list[tuple[Mesh, Array]] = []
    clouds: list[PointCloud] = []
    bad = 0
    for part, transform in _parts(path, field):
        bad += _not_finite(part)
        if isinstance(part, Mesh):
            meshes.append((part, transform))
        else:
            moved = part.turned(torch.from_numpy(transform[:3, :3])).points + torch.from_numpy(transform[:3, 3])
            clouds.append(PointCloud(moved, part.rgb))
    if bad:
        log.warning("%s: %s places with NaN or inf are left out, and the triangles at them", path, f"{bad:,}")
    if meshes and (sampled := sample_meshes(meshes, count, generator)) is not None:
        if lone := sum(len(cloud) for cloud in clouds):
            log.warning("%s: %s points beside the triangles are left out", path, f"{lone:,}")
        return sampled
    # Triangles without an area are as good as points; what is transparent throughout is nothing.
    seen = [(m, t) for m, t in meshes if m.visible() > 0]
    clouds += [PointCloud(torch.from_numpy(m.vertices @ t[:3, :3].T + t[:3, 3])) for m, t in seen]
    if meshes and not clouds:
        raise InputError(field, "a file with triangles that can be seen", f"{path}, all of which is transparent")
    if not clouds:
        raise InputError(field, "a file with points or triangles", f"{path}, which has none")
    return joined(clouds)


def _parts(path: Path, field: str) -> list[tuple[Mesh | PointCloud, Array]]:
    """What a file holds, each part with its transform [4, 4]. Errors: InputError."""
    try:
        return READERS[path.suffix.lower()](path, field)
    except InputError:
        raise
    except Exception as error:  # a file may hold anything anywhere
        raise _unreadable(path, field, error) from error


def _not_finite(part: Mesh | PointCloud) -> int:
    places = part.vertices if isinstance(part, Mesh) else part.points.numpy()
    return int((~np.isfinite(places).all(axis=-1)).sum())


def _as_they_are(
    read: Callable[[Path, str], list[Mesh | PointCloud]],
) -> Callable[[Path, str], list[tuple[Mesh | PointCloud, Array]]]:
    return lambda path, field: [(part, np.eye(4)) for part in read(path, field)]


READERS: dict[str, Callable[[Path, str], list[tuple[Mesh | PointCloud, Array]]]] = {
    ".glb": lambda path, field: [(one.part, one.transform) for one in read_gltf(path, field)],
    ".gltf": lambda path, field: [(one.part, one.transform) for one in read_gltf(path, field)],
    ".ply": _as_they_are(read_ply_model),
    ".obj": _as_they_are(read_obj),
    ".stl": _as_they_are(read_stl),
    ".off": _as_they_are(read_off),
}


def _unreadable(path: Path, field: str, error: BaseException) -> InputError:
    if isinstance(error, MemoryError):
        return InputError(field, "a file that fits the memory", path, "reduce its triangles first")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    if isinstance(error, KeyError):
        reason = f"it lacks {reason}"
    return InputError(field, f"a complete {path.suffix} file", f"{path}, which cannot be read ({reason})")


def sample_meshes(meshes: list[tuple[Mesh, Array]], count: int, generator: torch.Generator) -> PointCloud | None:
    """`count` points over all meshes by visible area, each mesh under its transform; None where there is none."""
    shown = {id(mesh): mesh.visible() for mesh, _ in meshes}
    areas = np.array([_area(mesh, transform) * shown[id(mesh)] for mesh, transform in meshes])
    if not areas.sum() > 0:
        return None
    ends = np.round(np.cumsum(areas) / areas.sum() * count).astype(int)
    shares = np.diff(ends, prepend=0)
    parts = [m.sample(int(n), generator, t) for (m, t), n in zip(meshes, shares) if n > 0]
    return joined(parts)


def _area(mesh: Mesh, transform: Array) -> float:
    """Surface of a placed mesh; for rotations with one scale from the mesh's own, which a scene repeats often."""
    linear = transform[:3, :3]
    product = linear.T @ linear
    if np.allclose(product, product[0, 0] * np.eye(3), rtol=1e-6):
        return float(mesh.areas().sum() * abs(product[0, 0]))
    return float(mesh.areas(transform).sum())


def joined(clouds: list[PointCloud]) -> PointCloud:
    """All points; grey stands in where only some have colours."""
    rgb = None
    if any(c.rgb is not None for c in clouds):
        rgb = torch.cat([torch.full((len(c), 3), 0.5) if c.rgb is None else c.rgb for c in clouds])
    return PointCloud(torch.cat([c.points for c in clouds]), rgb)


def check_file(path: Path, field: str) -> None:
    """Errors: InputError where the path is no readable file of a known suffix, or too large for the memory."""
    if path.suffix.lower() not in MODELS:
        raise InputError(field, f"a file of points or a mesh ({', '.join(MODELS)})", path)
    if path.is_dir():
        raise InputError(field, "a file", f"{path}, which is a folder")
    if not path.is_file():
        raise InputError(field, "a file", f"{path}, which does not exist")
    if path.stat().st_size == 0:
        raise InputError(field, "a file with points or triangles", f"{path}, which is empty")
    require_memory(BYTES_PER_BYTE[path.suffix.lower()] * (path.stat().st_size + _buffer_bytes(path)), path, field)


def _buffer_bytes(path: Path) -> int:
    """Size of the buffers beside a .gltf."""
    if path.suffix.lower() != ".gltf":
        return 0
    try:
        buffers = json.loads(path.read_text(encoding="utf-8")).get("buffers", [])
        return sum(int(b["byteLength"]) for b in buffers if not str(b.get("uri", "")).startswith("data:"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 0  # the reader says what is wrong with it
