"""The nodes of a glTF's scene as placed meshes and points."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InputError
from ..mesh import Array, Mesh, to_display
from ..point_cloud import PointCloud
from .accessors import DRACO, Accessors
from .document import BrokenModelError, Document
from .materials import Material, Materials

log = logging.getLogger(__name__)

POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
INSTANCING, VISIBILITY = "EXT_mesh_gpu_instancing", "KHR_node_visibility"
INSTANCES_AT_MOST = 100_000
"""Placed copies of meshes that a scene may have."""


@dataclass(frozen=True)
class Placed:
    """A part of a scene under its transform."""

    part: Mesh | PointCloud
    transform: Array  # [4, 4]


def read_gltf(path: Path, field: str) -> list[Placed]:
    """Every visible mesh and cloud of the default scene. Errors: InputError, BrokenModelError, OSError."""
    return Scene(Document(path, field)).placed()


class Scene:
    """Walks a document's nodes once."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.accessors = Accessors(document)
        self.materials = Materials(document, self.accessors)
        self.nodes = document.items("nodes")
        self._parts: dict[tuple[Any, ...], list[Mesh | PointCloud]] = {}
        self._lines = 0

    def placed(self) -> list[Placed]:
        """Errors: BrokenModelError for a graph that is no tree, InputError for a part that cannot be decoded."""
        world = dict(self._world())
        found: list[Placed] = []
        for number, transform in world.items():
            node = self.nodes[number]
            if "mesh" not in node:
                continue
            bones = self._bones(node["skin"], world) if "skin" in node else None
            where = [np.eye(4)] if bones is not None else [transform @ m for m in self._instances(node)]
            for part in self._mesh(node, bones):
                found += [Placed(part, m) for m in where]
            if len(found) > INSTANCES_AT_MOST:
                raise BrokenModelError(f"more than {INSTANCES_AT_MOST:,} placed parts")
        if not self.nodes:
            found = [Placed(part, np.eye(4)) for i in range(len(self.document.items("meshes")))
                     for part in self._mesh({"mesh": i}, None)]  # fmt: skip
        if self._lines:
            log.warning("%s: lines are left out, in %d parts", self.document.path, self._lines)
        return found

    def _world(self) -> Iterator[tuple[int, Array]]:
        """Every visible node of the scene and its transform [4, 4]; of all roots where no scene is given."""
        scenes = self.document.items("scenes")
        if scenes:
            roots = self.document.item("scenes", self.document.tree.get("scene", 0)).get("nodes") or []
        else:
            children = {c for node in self.nodes for c in node.get("children") or ()}
            roots = [i for i in range(len(self.nodes)) if i not in children]
        waiting = [(number, np.eye(4)) for number in reversed(roots)]
        seen: set[int] = set()
        while waiting:
            number, above = waiting.pop()
            node = self.document.item("nodes", number)
            if number in seen:
                raise BrokenModelError(f"its node {number} has two parents")
            seen.add(number)
            if ((node.get("extensions") or {}).get(VISIBILITY) or {}).get("visible", True) is False:
                continue
            transform = above @ _local(node)
            if not np.isfinite(transform).all():
                raise BrokenModelError(f"its node {number} has a transform with NaN or inf")
            yield number, transform
            waiting += [(child, transform) for child in reversed(node.get("children") or [])]

    def _instances(self, node: Mapping[str, Any]) -> list[Array]:
        """Transforms of a node's copies within it."""
        copies = (node.get("extensions") or {}).get(INSTANCING)
        if copies is None:
            return [np.eye(4)]
        read = {name: self.accessors.read(index) for name, index in copies["attributes"].items() if name[:1] != "_"}
        count = min((len(v) for v in read.values()), default=0)
        if count > INSTANCES_AT_MOST:
            raise BrokenModelError(f"more than {INSTANCES_AT_MOST:,} placed parts")
        keys = {"TRANSLATION": "translation", "ROTATION": "rotation", "SCALE": "scale"}
        return [_local({key: read[name][i] for name, key in keys.items() if name in read}) for i in range(count)]

    def _bones(self, skin: Any, world: Mapping[int, Array]) -> Array:  # [J, 4, 4]
        """From a skinned mesh's own space to the world, for each joint, at rest."""
        entry = self.document.item("skins", skin)
        joints = [world.get(j, np.eye(4)) for j in entry["joints"]]
        if "inverseBindMatrices" not in entry:
            return np.stack(joints)
        inverse = self.accessors.read(entry["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        return np.stack(joints) @ inverse[: len(joints)].astype(np.float64)

    def _mesh(self, node: Mapping[str, Any], bones: Array | None) -> list[Mesh | PointCloud]:
        """The parts of a node's mesh; shared between nodes that do not bend it."""
        number = node["mesh"]
        entry = self.document.item("meshes", number)
        weights = node.get("weights", entry.get("weights")) or []
        key = (number, tuple(weights))
        if bones is None and key in self._parts:
            return self._parts[key]
        parts = [part for p in entry["primitives"] if (part := self._primitive(p, weights, bones)) is not None]
        if bones is None:
            self._parts[key] = parts
        return parts

    def _primitive(
        self, primitive: Mapping[str, Any], weights: list[float], bones: Array | None
    ) -> Mesh | PointCloud | None:
        """Triangles or points; None for lines, and for what has no places."""
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (POINTS, TRIANGLES, STRIP, FAN):
            self._lines += 1
            return None
        numbers = primitive["attributes"]
        extensions = primitive.get("extensions") or {}
        faces = None
        values: dict[str, Array] = {}
        if DRACO in extensions:
            values, faces = self.accessors.draco(extensions[DRACO], numbers)
        elif "POSITION" in numbers and extensions and not self.accessors.declared(numbers["POSITION"]):
            got = f"{self.document.path} with {', '.join(extensions)}"
            raise InputError(self.document.field, "places that are not left to an extension", got, "export it without")
        wanted = [n for n in numbers if n not in values and _is_used(n)]
        values |= {name: self.accessors.read(numbers[name]) for name in wanted}
        if "POSITION" not in values:
            return None
        places = self._moved(values, primitive, weights, bones)
        material = self.materials.read(primitive.get("material"))
        if mode == POINTS:
            if material is not None and (material.texture is not None or material.mode != "OPAQUE"):
                log.warning("%s: the texture and the transparency of points are not used", self.document.path)
            return PointCloud(torch.from_numpy(places), _point_colors(values, material))
        if faces is None:
            order = self.accessors.read(primitive["indices"]) if "indices" in primitive else np.arange(len(places))
            order = np.asarray(order).astype(np.int64).reshape(-1)
            if mode == TRIANGLES and len(order) % 3:
                log.warning("%s: %d corners behind the last triangle are left out", self.document.path, len(order) % 3)
            faces = _triangles(order, mode)
        if len(faces) == 0:
            return PointCloud(torch.from_numpy(places), _point_colors(values, material))
        if faces.min() < 0 or faces.max() >= len(places):
            got = f"{self.document.path} with a face that names vertex {int(faces.max())} of {len(places)}"
            raise InputError(self.document.field, "faces between the vertices of the file", got)
        return self._painted(places, faces, values, material)

    def _moved(
        self, values: Mapping[str, Array], primitive: Mapping[str, Any], weights: list[float], bones: Array | None
    ) -> Array:  # [V, 3]
        """Places after the morph targets' weights and the bones of the pose at rest."""
        places = values["POSITION"].astype(np.float64).reshape(-1, 3)
        for weight, target in zip(weights, primitive.get("targets") or []):
            if weight and "POSITION" in target:
                places = places + weight * self.accessors.read(target["POSITION"]).astype(np.float64)
        if bones is None or "JOINTS_0" not in values:
            return places
        bent, total = np.zeros_like(places), np.zeros((len(places), 1))
        for i in range(sum(name.startswith("JOINTS_") for name in values)):
            joints, shares = values[f"JOINTS_{i}"].astype(np.int64), values[f"WEIGHTS_{i}"].astype(np.float64)
            for k in range(4):
                matrices, share = bones[joints[:, k]], shares[:, k : k + 1]
                bent += share * (np.einsum("nij,nj->ni", matrices[:, :3, :3], places) + matrices[:, :3, 3])
                total += share
        return np.where(total > 0, bent / np.where(total > 0, total, 1), places)

    def _painted(
        self, places: Array, faces: NDArray[np.int64], values: Mapping[str, Array], material: Material | None
    ) -> Mesh:
        colors = values.get("COLOR_0")
        rgba = None if colors is None or len(colors) != len(places) else _rgba(colors)
        if material is None:
            return Mesh(places, faces, vertex_rgb=None if rgba is None else rgba[:, :3], linear=True)
        texture, uv = material.texture, None
        if texture is not None:
            coordinates = values.get(texture.coordinates)
            if coordinates is None or len(coordinates) != len(places):
                log.warning("%s: a texture wants %s, which is not there", self.document.path, texture.coordinates)
                texture = None
            else:
                uv = texture.uv(coordinates.astype(np.float64))
        return Mesh(
            places,
            faces,
            texture=None if texture is None else texture.image,
            uv=uv,
            wrap=("repeat", "repeat") if texture is None else texture.wrap,
            vertex_rgb=None if rgba is None else rgba[:, :3],
            rgb=material.factor[:3],
            linear=True,
            alpha={"MASK": "mask", "BLEND": "blend"}.get(material.mode, "opaque"),  # type: ignore[arg-type]
            cutoff=material.cutoff,
            opacity=float(material.factor[3]),
            vertex_alpha=None if rgba is None else rgba[:, 3],
        )


def _is_used(name: str) -> bool:
    return name in ("POSITION", "COLOR_0") or name.startswith(("TEXCOORD_", "JOINTS_", "WEIGHTS_"))


def _local(node: Mapping[str, Any]) -> Array:  # [4, 4]
    """A node's own transform: its matrix, or moved, turned and scaled."""
    if "matrix" in node:
        return np.asarray(node["matrix"], dtype=np.float64).reshape(4, 4).T
    out = np.eye(4)
    if "rotation" in node:
        turn = np.asarray(node["rotation"], dtype=np.float64).reshape(4)
        x, y, z, w = turn / max(float(np.linalg.norm(turn)), 1e-12)
        out[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    out[:3, :3] *= np.asarray(node.get("scale", (1.0, 1.0, 1.0)), dtype=np.float64).reshape(3)
    out[:3, 3] = np.asarray(node.get("translation", (0.0, 0.0, 0.0)), dtype=np.float64).reshape(3)
    return out


def _triangles(order: NDArray[np.int64], mode: int) -> NDArray[np.int64]:  # [F, 3]
    """Corners of triangles; of a strip every second one is turned round."""
    if mode == TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    count = max(0, len(order) - 2)
    i = np.arange(count)
    if mode == FAN:
        return np.stack([np.full(count, order[0] if count else 0), order[i + 1], order[i + 2]], axis=-1)
    odd = i % 2
    return np.stack([order[i], order[i + 1 + odd], order[i + 2 - odd]], axis=-1)


def _rgba(colors: Array) -> Array:  # [V, 4]
    values = colors.astype(np.float64)
    if colors.dtype.kind in "iu":  # which should be marked as normalised
        values = values / np.iinfo(str(colors.dtype)).max
    return values if values.shape[1] == 4 else np.concatenate([values, np.ones((len(values), 1))], axis=1)


def _point_colors(values: Mapping[str, Array], material: Material | None) -> torch.Tensor | None:
    """Display colours of points; linear by the standard."""
    colors = values.get("COLOR_0")
    if colors is None and material is None:
        return None
    count = len(values["POSITION"])
    linear = np.ones((count, 3)) if colors is None or len(colors) != count else _rgba(colors)[:, :3]
    return torch.from_numpy(to_display(linear * (1.0 if material is None else material.factor[:3]))).float()
