"""Writes a mesh as binary glTF 2.0, through trimesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .textured import TexturedMesh

SUFFIX = ".glb"
ROUGHNESS = 0.9
"""Of the material: matt, since highlights are in the texture already."""


def glb_bytes(mesh: TexturedMesh, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The file's content; `metadata` (values that JSON can hold) becomes the scene's extras."""
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        name="splat", baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0, roughnessFactor=ROUGHNESS
    )
    uv = mesh.uv.astype("float64")
    uv[:, 1] = 1 - uv[:, 1]  # trimesh counts from below
    body = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )
    scene = trimesh.Scene({"splat": body})
    scene.metadata.update(metadata or {})
    content: bytes = scene.export(file_type="glb", include_normals=True)
    return content


def save_mesh(mesh: TexturedMesh, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a GLB, atomically."""
    content = glb_bytes(mesh, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
