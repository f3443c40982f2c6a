"""ComfyUI's MESH as coloured triangles. Its frame is glTF's: Y up, the front on +Z."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from comfy_api.latest import Types
from torch import Tensor

from ...dreamer_core.errors import InputError
from ...dreamer_core.initializers.mesh import Mesh
from ...dreamer_core.meshes import ROUGHNESS, TexturedMesh


def one_from_mesh(mesh: Any) -> Mesh:
    """The only object of a MESH. Colours of vertices are linear, a texture holds display values, as in glTF.

    Errors: InputError for a batch, an empty mesh, and faces between vertices that do not exist.
    """
    batch = mesh.vertices.shape[0]
    if batch != 1:
        raise InputError("mesh", "one object", f"a batch of {batch}", "give them one at a time")
    count = mesh.vertices.shape[1] if mesh.vertex_counts is None else int(mesh.vertex_counts[0])
    triangles = mesh.faces.shape[1] if mesh.face_counts is None else int(mesh.face_counts[0])
    if not count or not triangles:
        raise InputError("mesh", "at least one triangle", f"{count} vertices and {triangles} triangles")

    def rows(value: Tensor | None, length: int) -> Any:
        if value is None:
            return None
        part = value[0, :length].detach().cpu()
        return (part.float() if part.is_floating_point() else part).numpy()

    faces = rows(mesh.faces, triangles).astype(np.int64)
    if faces.min() < 0 or faces.max() >= count:
        got = f"a face that names vertex {faces.max()} of {count}"
        raise InputError("mesh", "faces between the vertices of the mesh", got)
    texture, uv = getattr(mesh, "texture", None), rows(getattr(mesh, "uvs", None), count)
    colors = rows(getattr(mesh, "vertex_colors", None), count)
    image = None
    if texture is not None and uv is not None:
        image = (texture[0, ..., :3].detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
    factor = (getattr(mesh, "material", None) or {}).get("base_color_factor")
    return Mesh(
        rows(mesh.vertices, count).astype(np.float64),
        faces,
        texture=image,
        uv=None if uv is None else uv.astype(np.float64),
        vertex_rgb=None if colors is None else colors[:, :3].astype(np.float64),
        rgb=None if factor is None else np.asarray(factor[:3], dtype=np.float64),
        linear=True,
    )


MATERIAL = {"metallic_factor": 0.0, "roughness_factor": ROUGHNESS}
"""The one that our own GLB has."""


def to_mesh(mesh: TexturedMesh) -> Types.MESH:
    """A MESH of one object, with the material that our own GLB has."""
    return Types.MESH(
        vertices=_one(mesh.vertices),
        faces=_one(mesh.faces),
        uvs=_one(mesh.uv),
        normals=_one(mesh.normals),
        texture=_one(mesh.texture).float() / 255,
        material=dict(MATERIAL),
    )


def with_texture(mesh: Any, painted: TexturedMesh) -> Types.MESH:
    """`mesh` with the texture of `painted`, which was made of it.

    What would multiply the texture goes: colours of vertices and of the material. Its own normals and maps stay, but
    for a mesh that had no UVs.
    """
    material = mesh.material and {k: v for k, v in mesh.material.items() if k != "base_color_factor"}
    if mesh.uvs is None:
        made = to_mesh(painted)
        made.material, made.unlit = material, mesh.unlit
        return made
    made = copy.copy(mesh)
    made.texture, made.vertex_colors, made.material = _one(painted.texture).float() / 255, None, material
    made.normals = _one(painted.normals) if mesh.normals is None else mesh.normals
    return made


def _one(values: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(values)[None]
