"""Files of Gaussians: `docs/formats.md` says what each format keeps."""

from .files import READABLE, WRITABLE, load_gaussians, save_gaussians, splat_suffix
from .metadata import read_metadata, sidecar
from .ply import read_ply, write_ply

__all__ = [
    "READABLE",
    "WRITABLE",
    "load_gaussians",
    "read_metadata",
    "read_ply",
    "save_gaussians",
    "sidecar",
    "splat_suffix",
    "write_ply",
]
