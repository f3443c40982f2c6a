"""From a splat to a closed, textured triangle mesh (GLB)."""

from .build import build_mesh
from .config import MeshConfig
from .glb import ROUGHNESS, SUFFIX, glb_bytes, save_mesh
from .packages import require_packages
from .textured import TexturedMesh

__all__ = [
    "ROUGHNESS",
    "SUFFIX",
    "MeshConfig",
    "TexturedMesh",
    "build_mesh",
    "glb_bytes",
    "require_packages",
    "save_mesh",
]
