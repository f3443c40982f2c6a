"""Reads point clouds and meshes: GLB, GLTF, PLY and OBJ by readers of our own, STL and OFF by trimesh."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .gltf import read_gltf
from .mesh import Array, Mesh
from .obj import read_obj
from .ply_models import read_ply_model
from .point_cloud import PointCloud

MODEL_UP = {".glb": "+y", ".gltf": "+y", ".obj": "+y", ".ply": "+z", ".stl": "+z", ".off": "+z"}
"""What `auto` takes for up. glTF demands Y up and the front on +Z; the rest is custom: Blender writes OBJ so, and STL,
PLY and OFF mostly come from tools whose Z is up and whose front is -Y."""
MODELS = tuple(MODEL_UP)
"""Lower-case suffixes of the files that `read_points` reads."""
BYTES_PER_BYTE = {".obj": 10, ".off": 20, ".gltf": 12, ".glb": 12, ".ply": 20, ".stl": 10}
"""Memory that reading takes per byte of the file, rounded up from measurements."""


def read_points(path: Path, count: int, generator: torch.Generator, field: str = "FILE") -> PointCloud:
    """The points of a cloud, or `count` points on the surfaces of a mesh, with colours, along the file's own axes.

    A scene's nodes are placed by their transforms. Colours come from the texture, the vertices, the faces or the
    material. Errors: InputError for a missing, broken, empty or too large file.
    """
    check_file(path, field)
    meshes: list[tuple[Mesh, Array]] = []
    clouds: list[PointCloud] = []
    for part, transform in _parts(path, field):
        if isinstance(part, Mesh):
            meshes.append((part, transform))
        else:
            moved = part.turned(torch.from_numpy(transform[:3, :3])).points + torch.from_numpy(transform[:3, 3])
            clouds.append(PointCloud(moved, part.rgb))
    if meshes and (sampled := sample_meshes(meshes, count, generator)) is not None:
        return sampled
    # Triangles without an area are as good as points; what is transparent throughout is nothing.
    seen = [(m, t) for m, t in meshes if m.visible() > 0]
    clouds += [PointCloud(torch.from_numpy(m.vertices @ t[:3, :3].T + t[:3, 3])) for m, t in seen]
    if meshes and not clouds:
        raise InputError(field, "a file with triangles that can be seen", f"{path}, all of which is transparent")
    if not clouds:
        raise InputError(field, "a file with points or triangles", f"{path}, which has none")
    return joined(clouds)


def _parts(path: Path, field: str) -> Iterator[tuple[Mesh | PointCloud, Array]]:
    """What a file holds, each part with its transform [4, 4]. Errors: InputError."""
    reader = READERS.get(path.suffix.lower())
    if reader is not None:
        try:
            parts = reader(path, field)
        except InputError:
            raise
        except Exception as error:  # a file may hold anything anywhere
            raise _unreadable(path, field, error) from error
        yield from parts
        return
    scene = _load(path, field)
    for node in sorted(scene.graph.nodes_geometry):
        transform, name = scene.graph[node]
        try:
            part = _part(scene.geometry[name], path, field)
        except InputError:
            raise
        except Exception as error:  # what trimesh let pass
            raise _unreadable(path, field, error) from error
        if part is not None:
            yield part, np.array(transform, dtype=np.float64)


def _as_they_are(
    read: Callable[[Path, str], list[Mesh | PointCloud]],
) -> Callable[[Path, str], list[tuple[Mesh | PointCloud, Array]]]:
    return lambda path, field: [(part, np.eye(4)) for part in read(path, field)]


READERS: dict[str, Callable[[Path, str], list[tuple[Mesh | PointCloud, Array]]]] = {
    ".glb": lambda path, field: [(one.part, one.transform) for one in read_gltf(path, field)],
    ".gltf": lambda path, field: [(one.part, one.transform) for one in read_gltf(path, field)],
    ".ply": _as_they_are(read_ply_model),
    ".obj": _as_they_are(read_obj),
}
"""Formats that are read here; trimesh reads the others."""


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
    import psutil

    needed = BYTES_PER_BYTE[path.suffix.lower()] * (path.stat().st_size + _buffer_bytes(path))
    free = psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise InputError(
            field,
            "a file that fits the memory",
            f"{path}, which would take about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free",
            "reduce its triangles or points first (for instance with Blender's Decimate)",
        )


def _buffer_bytes(path: Path) -> int:
    """Size of the buffers beside a .gltf."""
    if path.suffix.lower() != ".gltf":
        return 0
    try:
        buffers = json.loads(path.read_text(encoding="utf-8")).get("buffers", [])
        return sum(int(b["byteLength"]) for b in buffers if not str(b.get("uri", "")).startswith("data:"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0  # trimesh says what is wrong with it


def _load(path: Path, field: str) -> Any:
    """The file as a trimesh scene."""
    import trimesh

    with _quiet():
        try:
            return trimesh.load_scene(str(path), process=False)
        except Exception as error:  # trimesh's parsers raise many kinds for a broken file
            raise _unreadable(path, field, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """trimesh logs what a file lacks; a missing texture is not worth a traceback."""
    log = logging.getLogger("trimesh")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _part(geometry: Any, path: Path, field: str) -> Mesh | PointCloud | None:
    """A trimesh geometry as ours; None for lines and for what has no points."""
    vertices = np.array(geometry.vertices, dtype=np.float64) if hasattr(geometry, "vertices") else None
    if vertices is None or not len(vertices) or hasattr(geometry, "entities"):
        return None
    if vertices.shape[1:] != (3,):
        raise ValueError(f"its points have {vertices.shape[1] if vertices.ndim == 2 else 0} coordinates")
    faces = np.asarray(getattr(geometry, "faces", np.zeros((0, 3))), dtype=np.int64)
    if not len(faces):
        return PointCloud(torch.from_numpy(vertices), _point_colors(geometry, len(vertices)))
    if faces.min() < 0 or faces.max() >= len(vertices):
        got = f"{path} with a face that names vertex {int(faces.max())} of {len(vertices)}"
        raise InputError(field, "faces between the vertices of the file", got)
    return Mesh(vertices, faces, **_paint(geometry.visual, len(vertices), len(faces)))


def _point_colors(geometry: Any, count: int) -> torch.Tensor | None:
    colors = np.asarray(getattr(geometry, "colors", None) if hasattr(geometry, "colors") else ())
    if colors.ndim != 2 or len(colors) != count:
        return None
    return torch.from_numpy(_unit(colors)).float()


def _unit(colors: Any) -> Array:
    """RGB in [0, 1] of colours in whole numbers of any width, or floats."""
    array = np.asarray(colors)
    largest = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1.0
    return array[..., :3] / np.float64(largest)


def _paint(visual: Any, vertices: int, faces: int) -> dict[str, Any]:
    """The colours of a mesh as arguments of `Mesh`."""
    if visual.kind == "vertex" and len(visual.vertex_colors) == vertices:
        return {"vertex_rgb": _unit(visual.vertex_colors)}
    if visual.kind == "face" and len(visual.face_colors) == faces:
        return {"face_rgb": _unit(visual.face_colors)}
    return {}
