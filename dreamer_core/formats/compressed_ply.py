"""PlayCanvas's compressed PLY: chunks of 256 Gaussians, each value quantised between the chunk's bounds.

Per Gaussian 16 bytes, 45 more for SH of degree 3, and 72 per chunk. Bits: position and log-scale 11, 10, 11 for x, y
and z; rotation 10 for each of the three smallest components; colour 8 a channel; opacity 8; SH 8 over [-4, 4].
Gaussians are sorted by place; those of opacity up to 1/255, which no rasterizer draws, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians
from .file_frame import to_file_frame
from .format import Format
from .gsply_backend import read
from .ply_header import property_names, with_comments

VISIBLE = 1 / 255
"""Opacity above which a Gaussian is kept."""


def write_compressed_ply(
    gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
) -> None:
    """Write Gaussians of our world, atomically (gsplat's exporter); metadata as comments.

    Errors: InputError for no visible Gaussian, NaN or inf.
    """
    from gsplat.exporter import export_splats

    g = to_file_frame(gaussians, field)
    if not bool((g.opacities > VISIBLE).any()):
        raise InputError(field, "a Gaussian with opacity above 1/255 for a compressed PLY", "none")
    data = export_splats(g.means, g.log_scales, g.quats, g.logit_opacities, g.sh0, g.shN, format="ply_compressed")
    if g.sh_degree == 0:
        end = data.index(b"end_header\n")
        start = data.index(b"element sh ", 0, end)
        data = data[:start] + data[end:]  # an element without properties, which some readers refuse
    data = with_comments(data, metadata or {})

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def is_compressed(path: Path) -> bool:
    """Whether a PLY's header declares packed attributes."""
    return b"packed_position" in property_names(path)


def read_compressed_ply(path: Path, field: str) -> Gaussians:
    """What a compressed PLY holds, in the file's frame (gsply). Errors: InputError."""
    return read(path, field, "a compressed PLY", lambda gsply: gsply.plyread)


COMPRESSED_PLY = Format(
    ".compressed.ply",
    "PLY, compressed (PlayCanvas)",
    "a quarter of it, for SuperSplat and PlayCanvas",
    write=write_compressed_ply,
    recognise=is_compressed,
)
