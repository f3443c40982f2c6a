"""antimatter15's .splat: 32 bytes a Gaussian and nothing else, without higher spherical harmonics.

Position and scale as float32; red, green, blue and opacity in 8 bits over [0, 1]; the rotation's w, x, y, z in 8 bits
over [-1, 1). Values are cut off, not rounded, to 8 bits, as the format's first writer does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians
from .bounds import require_memory
from .file_frame import check_file, to_file_frame, to_world
from .format import Format

RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])

MEMORY = 10
"""Bytes that reading takes per byte of the file, rounded up."""
OTHERS = {
    b"ply\n": "a PLY",
    b"ply\r": "a PLY",
    b"\x1f\x8b\x08": "gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"glTF": "a GLB",
    b"NGSP": "an .spz",
}
"""Beginnings of other files that are called so by mistake, and what those are."""
TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{32}")
"""No Gaussian: 32 letters would be coordinates and scales of most different sizes."""


def write_splat(
    gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
) -> None:
    """Write Gaussians of our world, sorted by place, atomically (gsplat's exporter). The format holds no metadata.

    Errors: InputError for no Gaussians, NaN or inf, or scales that float32 cannot hold.
    """
    from gsplat.exporter import export_splats

    g = to_file_frame(gaussians, field)
    if not bool(torch.isfinite(g.scales).all()):
        raise InputError(field, "scales below 3e38 for a .splat", f"exp({float(g.log_scales.max()):.4g})")
    data = export_splats(g.means, g.log_scales, g.quats, g.logit_opacities, g.sh0, g.shN, format="splat")

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def read_splat(path: Path, field: str = "FILE") -> Gaussians:
    """The Gaussians of a .splat, in our world. Errors: InputError."""
    check_file(path, field, "a .splat file")
    try:
        require_memory(MEMORY * path.stat().st_size, path, field, "use fewer Gaussians")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(field, "a .splat file that can be read", f"{path} ({error.strerror})") from error
    if len(data) % RECORD.itemsize:
        raise InputError(field, "a .splat file of 32 bytes a Gaussian", f"{path} with {len(data)} bytes")
    other = (
        "text" if TEXT.match(data) else next((what for start, what in OTHERS.items() if data.startswith(start)), None)
    )
    if other is not None:
        raise InputError(field, "a .splat file", f"{path}, which holds {other}")
    rows = np.frombuffer(data, RECORD)

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(rows[name].astype(np.float32))

    rgba = tensor("rgba") / 255
    gaussians = Gaussians.from_activated(
        means=tensor("mean"),
        quats=(tensor("quat") - 128) / 128,
        scales=tensor("scale").abs(),  # an axis has no sign
        opacities=rgba[:, 3],
        rgb=rgba[:, :3],
    )
    return to_world(gaussians, path, field)


SPLAT = Format(
    ".splat",
    "splat (antimatter15)",
    "32 bytes a Gaussian, without reflections (spherical harmonics)",
    read=read_splat,
    write=write_splat,
)
