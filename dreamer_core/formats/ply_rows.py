"""The columns of a PLY's vertices as Gaussians, in the file's frame, by the names that trainers of splats write."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..gaussians import HARMONICS, Gaussians, rgb_to_sh
from .colors import color_names, unit_colors
from .file_frame import near_origin

log = logging.getLogger(__name__)

Column = NDArray[np.generic]
THIN = float(np.log(1e-6))
"""Log-scale of the axis that a 2DGS file leaves out, as SuperSplat adds it."""
HIGHEST = 15
"""Coefficients of SH degree 1 to 3, the most that is kept."""
NORMALS = ("nx", "ny", "nz")
EXPORT = "export it as a Gaussian splat (3DGS) PLY"


def gaussians_of(rows: Mapping[str, Column], path: Path, field: str) -> Gaussians:
    """The Gaussians of a table of vertices. Known are 3DGS with SH or with red, green and blue, 2DGS (no third scale),
    one scale for all axes, and Mip-Splatting's `filter_3D`, which is applied. Says which columns are not used.

    Errors: InputError for columns that are missing.
    """
    colors = () if "f_dc_0" in rows else color_names(rows)
    dc = colors or tuple(f"f_dc_{i}" for i in range(3))
    scales = [name for name in ("scale_0", "scale_1", "scale_2") if name in rows] or ["scale_0"]
    turns = [] if scales == ["scale_0"] and "rot_0" not in rows else [f"rot_{i}" for i in range(4)]
    needed = ["x", "y", "z", *dc, "opacity", *scales, *turns]
    missing = [name for name in needed if name not in rows]
    if missing:
        what = "a PLY with 3D Gaussian attributes"
        got = f"{path} without {', '.join(missing)} (it has {', '.join(rows) or 'no vertices'})"
        raise InputError(field, what, got, EXPORT)
    rest = _rest_names(rows, path, field)
    n = len(rows["x"])
    unused = [name for name in rows if name not in {*needed, *rest, *NORMALS, "filter_3D"}]
    if unused:
        log.warning("%s: attributes that are not used: %s", path, _shown(unused))
    means = near_origin(np.stack([rows[name].astype(np.float64) for name in "xyz"], axis=-1), path)
    gaussians = Gaussians(
        means=means,
        quats=_columns(rows, turns) if turns else torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        log_scales=_log_scales(rows, scales),
        logit_opacities=torch.from_numpy(rows["opacity"].astype(np.float32)),
        sh0=_base(rows, dc, bool(colors))[:, None],
        shN=_higher(rows, rest, n, path),
    )
    return _filtered(gaussians, rows["filter_3D"]) if "filter_3D" in rows else gaussians


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _columns(rows: Mapping[str, Column], names: Sequence[str]) -> Tensor:  # [N, len(names)]
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.stack([rows[name].astype(np.float32) for name in names], axis=-1))


def _base(rows: Mapping[str, Column], names: Sequence[str], display: bool) -> Tensor:  # [N, 3]
    """Coefficients of degree 0, from display colours where the file has those."""
    if not display:
        return _columns(rows, names)
    return rgb_to_sh(torch.from_numpy(unit_colors(np.stack([rows[name] for name in names], axis=-1))).float())


def _log_scales(rows: Mapping[str, Column], names: Sequence[str]) -> Tensor:  # [N, 3]
    found = _columns(rows, names)
    if len(names) == 1:
        return found.repeat(1, 3)
    return torch.nn.functional.pad(found, (0, 3 - len(names)), value=THIN)


def _rest_names(rows: Mapping[str, Column], path: Path, field: str) -> list[str]:
    """Columns of the higher coefficients, in order. Errors: InputError for holes, or channels of different length."""
    found = sorted(int(name[7:]) for name in rows if re.fullmatch(r"f_rest_(0|[1-9][0-9]{0,3})", name))
    if len(found) % 3 or found != list(range(len(found))):
        got = f"{path} with {len(found)}, up to f_rest_{found[-1]}"
        raise InputError(field, "f_rest attributes without gaps, as many for each of three colours", got, EXPORT)
    return [f"f_rest_{i}" for i in found]


def _higher(rows: Mapping[str, Column], names: Sequence[str], n: int, path: Path) -> Tensor:  # [N, K, 3]
    """Higher coefficients up to the last degree that is not all zero; files pad with zeros for readers of one layout.

    An incomplete degree is filled up with zeros, degrees above 3 are left out with a line.
    """
    per_channel = len(names) // 3
    if per_channel > HIGHEST:
        log.warning("%s: spherical harmonics above degree 3 are left out", path)
    kept = [names[c * per_channel + k] for k in range(min(per_channel, HIGHEST)) for c in range(3)]
    last = max((i // 3 + 1 for i, name in enumerate(kept) if rows[name].any()), default=0)
    width = next(k for k in HARMONICS if k >= last)
    used = kept[: 3 * width]
    if not used:
        return torch.zeros(n, 0, 3)
    higher = _columns(rows, used).reshape(n, len(used) // 3, 3)
    return torch.nn.functional.pad(higher, (0, 0, 0, width - higher.shape[1]))


def _filtered(g: Gaussians, size: Column) -> Gaussians:
    """Mip-Splatting's smoothing (2311.16493, eq. 7): variances grow by size^2, opacity falls so that mass stays."""
    added = torch.from_numpy(size.astype(np.float64))[:, None] ** 2
    before = (2 * g.log_scales.double()).exp()
    after = before + added
    share = (before / after).clamp_min(0).sqrt().prod(dim=-1)
    opacity = g.logit_opacities.double().sigmoid() * torch.where(added[:, 0] > 0, share, torch.ones_like(share))
    return Gaussians(
        g.means, g.quats, (after.log() / 2).float(), torch.logit(opacity).float(), g.sh0, g.shN
    )  # NaN where the file has it: such rows are left out
