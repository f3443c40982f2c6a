"""PlayCanvas's compressed PLY: chunks of 256 Gaussians, each value quantised between the chunk's bounds.

Per Gaussian 16 bytes, 45 more for SH of degree 3, and 72 per chunk. Bits: position and log-scale 11, 10, 11 for x, y
and z; rotation 10 for each of the three smallest components; colour 8 a channel; opacity 8; SH 8 over [-4, 4].
Gaussians are sorted by place; those of opacity up to 1/255, which no rasterizer draws, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians, rgb_to_sh
from .file_frame import near_origin, to_file_frame
from .format import Format
from .ply_elements import Columns, Lists, PlyFile
from .ply_header import property_names, with_comments

CHUNK = 256
"""Gaussians that share bounds."""
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


def is_compressed(file: PlyFile) -> bool:
    """Whether a PLY's vertices are packed."""
    vertex = file.header.element("vertex")
    return vertex is not None and "packed_position" in vertex.names


def _is_compressed_file(path: Path) -> bool:
    return "packed_position" in property_names(path)


def read_compressed_ply(file: PlyFile, field: str) -> Gaussians:
    """What a compressed PLY holds, in the file's frame. Errors: InputError, BrokenPlyError, OSError.

    Files of SuperSplat before 2.0 have no bounds of colours, which are 8 bits over [0, 1] there.
    """
    vertex, chunk = _numbers(file.read("vertex")), _numbers(file.read("chunk"))
    packed = [f"packed_{name}" for name in ("position", "rotation", "scale", "color")]
    bounds = [f"{side}_{part}{axis}" for part in ("", "scale_") for side in ("min", "max") for axis in "xyz"]
    missing = [name for name in packed if name not in vertex] + [name for name in bounds if name not in chunk]
    if missing:
        raise InputError(field, "a compressed PLY that is complete", f"{file.path} without {', '.join(missing)}")
    n = len(vertex[packed[0]])
    if len(chunk["min_x"]) * CHUNK < n:
        got = f"{file.path} with bounds for {len(chunk['min_x']) * CHUNK:,} of {n:,} Gaussians"
        raise InputError(field, "a compressed PLY that is complete", got)
    of_row = np.arange(n) // CHUNK

    def unpacked(name: str, axes: Sequence[str], bits: Sequence[int]) -> NDArray[np.float64]:
        parts = _fields(vertex[f"packed_{name}"], bits)
        lows, highs = (np.stack([chunk[f"{side}_{axis}"] for axis in axes], axis=-1) for side in ("min", "max"))
        return lows[of_row] + parts * (highs - lows)[of_row]

    rgba = _fields(vertex["packed_color"], (8, 8, 8, 8))
    rgb = rgba[:, :3]
    if all(f"{side}_{channel}" in chunk for side in ("min", "max") for channel in "rgb"):
        rgb = unpacked("color", "rgb", (8, 8, 8, 8)[:3])
    alpha = torch.from_numpy(rgba[:, 3]).clamp(1e-6, 1 - 1e-6)
    return Gaussians(
        means=near_origin(unpacked("position", "xyz", (11, 10, 11)), file.path),
        quats=torch.from_numpy(_rotations(vertex["packed_rotation"])).float(),
        log_scales=torch.from_numpy(unpacked("scale", ["scale_x", "scale_y", "scale_z"], (11, 10, 11))).float(),
        logit_opacities=alpha.logit().float(),
        sh0=rgb_to_sh(torch.from_numpy(rgb)).float()[:, None],
        shN=_higher(file, n, field),
    )


def _numbers(columns: Columns) -> dict[str, NDArray[Any]]:
    return {name: column for name, column in columns.items() if not isinstance(column, Lists)}


def _fields(words: NDArray[Any], bits: Sequence[int]) -> NDArray[np.float64]:  # [N] -> [N, len(bits)]
    """The bit fields of 32-bit words from the highest down, each over [0, 1]."""
    whole = words.astype(np.uint32)
    shift, out = 32, []
    for width in bits:
        shift -= width
        out.append((whole >> np.uint32(shift) & np.uint32((1 << width) - 1)) / ((1 << width) - 1))
    return np.stack(out, axis=-1)


def _rotations(words: NDArray[Any]) -> NDArray[np.float64]:  # [N] -> [N, 4] wxyz
    """The largest component's place in 2 bits, the others in 10 bits each over [-1/sqrt(2), 1/sqrt(2)]."""
    whole = words.astype(np.uint32)
    small = (_fields(whole << np.uint32(2), (10, 10, 10)) - 0.5) * np.sqrt(2)
    largest = np.sqrt(np.clip(1 - (small**2).sum(axis=-1), 0, None))
    place = (whole >> np.uint32(30)).astype(np.int64)
    rows = np.arange(len(whole))
    out = np.empty((len(whole), 4))
    for i in range(4):
        others = [j for j in range(4) if j != i]
        mine = rows[place == i]
        out[mine, i] = largest[mine]
        out[np.ix_(mine, others)] = small[mine]
    return out


def _higher(file: PlyFile, n: int, field: str) -> torch.Tensor:  # [N, K, 3]
    """Higher coefficients, in 8 bits over [-4, 4]."""
    columns = _numbers(file.read("sh"))
    names = [f"f_rest_{i}" for i in range(len(columns))]
    if not names:
        return torch.zeros(n, 0, 3)
    if len(names) not in (9, 24, 45) or any(name not in columns or len(columns[name]) != n for name in names):
        got = f"{file.path} with {len(names)} of {len(next(iter(columns.values()))):,}"
        raise InputError(field, f"9, 24 or 45 SH attributes of {n:,} Gaussians", got)
    table = np.stack([columns[name].astype(np.float32) for name in names], axis=-1)
    return torch.from_numpy((table - 127.5) / 32).reshape(n, 3, -1).transpose(1, 2).contiguous()


COMPRESSED_PLY = Format(
    ".compressed.ply",
    "PLY, compressed (PlayCanvas)",
    "rounded, mostly a quarter of that, for SuperSplat and PlayCanvas",
    write=write_compressed_ply,
    recognise=_is_compressed_file,
)
