"""From a splat to a closed, textured triangle mesh (GLB)."""

from .build import build_mesh
from .config import MeshConfig
from .glb import ROUGHNESS, SUFFIX, glb_bytes, save_mesh
from .packages import require_packages
from .paint import READ, paint_mesh
from .textured import TexturedMesh

__all__ = [
    "READ",
    "ROUGHNESS",
    "SUFFIX",
    "MeshConfig",
    "TexturedMesh",
    "build_mesh",
    "glb_bytes",
    "paint_mesh",
    "require_packages",
    "save_mesh",
]
