"""Files of Gaussians: `docs/formats.md` says what each format keeps."""

from .format import Format
from .ply import read_ply, write_compact_ply, write_ply
from .splat_files import (
    FORMATS,
    READABLE,
    WRITABLE,
    load_gaussians,
    read_metadata,
    require_packages,
    save_gaussians,
    sidecar,
    splat_format,
    splat_suffix,
)

__all__ = [
    "FORMATS",
    "READABLE",
    "WRITABLE",
    "Format",
    "load_gaussians",
    "read_metadata",
    "read_ply",
    "require_packages",
    "save_gaussians",
    "sidecar",
    "splat_format",
    "splat_suffix",
    "write_compact_ply",
    "write_ply",
]
