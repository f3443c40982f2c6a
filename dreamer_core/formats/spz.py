"""Niantic's .spz (written by gsply): a quarter of a PLY or less, with spherical harmonics.

Positions are fixed-point with 24 bits, 12 of them fractions (fewer for scenes beyond 2,048 units); log-scales have 8
bits in steps of 1/16 over [-10, 5.9]; rotations 9 bits and a sign for each of the three smallest components; opacity 8
bits; colours 8 bits, SH of degree 0 over [-3.3, 3.3]; higher SH 8 bits over [-1, 1).

Version 3 is written, which most programs read; 1 to 4 are read. Niantic's text names an axis order with Y up, but
ComfyUI, its viewer (spark) and SuperSplat take an .spz as they take a PLY, with Y down, and so does this, unless the
file itself declares its frame (SPZ_ADOBE_coordinate_system).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians
from .bounds import require_memory
from .file_frame import check_file, to_file_frame, to_world
from .format import Format
from .gsply_backend import import_gsply
from .spz_layout import gaussians_of

FRACTION = 12
"""Bits after the point of a position: steps of 0.00024 units."""
WHOLE = 1 << 23
"""Positions lie below this many steps."""


def fraction_bits(extent: float) -> int:
    """Bits after the point with which coordinates up to `extent` fit into 24 bits."""
    return min(FRACTION, math.floor(math.log2((WHOLE - 1) / max(extent, 1e-9))))


def _gsply(field: str) -> Any:
    return import_gsply(field, "writing an .spz")


def write_spz(
    gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
) -> None:
    """Write all Gaussians of our world, atomically. The format holds no metadata.

    Errors: InputError without gsply, for no Gaussians, NaN or inf, or positions beyond four million units.
    """
    gsply = _gsply(field)
    g = to_file_frame(gaussians, field)
    extent = float(g.means.abs().max())
    bits = fraction_bits(extent)
    if bits < 1:
        raise InputError(field, "positions within 4,000,000 units for an .spz", f"{extent:.4g}")
    data = gsply.GSData.from_arrays(
        means=g.means.numpy(),
        scales=g.log_scales.numpy(),
        quats=g.quats.numpy(),
        opacities=g.logit_opacities.numpy(),
        sh0=g.sh0[:, 0].numpy(),
        shN=g.shN.numpy() if g.sh_degree else None,
        format="ply",
    )
    write_atomically(path, lambda temporary: gsply.write_spz(temporary, data, version=3, fractional_bits=bits))


def read_spz(path: Path, field: str = "FILE") -> Gaussians:
    """The Gaussians of an .spz, in our world. Errors: InputError; one of version 4 needs the package zstandard."""
    check_file(path, field, "an .spz file")
    try:
        require_memory(2 * path.stat().st_size, path, field, "use fewer Gaussians")
        gaussians = gaussians_of(path.read_bytes(), path, field)
    except OSError as error:
        raise InputError(field, "an .spz file that can be read", f"{path} ({error.strerror})") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(field, "a complete .spz file", f"{path}, which cannot be read ({error})") from error
    return to_world(gaussians, path, field)


SPZ = Format(".spz", "SPZ (Niantic)", "the smallest", read=read_spz, write=write_spz, require=_gsply)
