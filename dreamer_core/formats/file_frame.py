"""Between a file's Gaussians and ours: checks, and the one change of frame."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..bad_rows import without_bad_rows
from ..errors import InputError
from ..frames import flip_frame
from ..gaussians import Gaussians

log = logging.getLogger(__name__)

FINE = 2.0**-16
"""Of an object's size: coarser steps of its places are seen, so that it is moved to the origin, or a line says so."""


def check_file(path: Path, field: str, what: str) -> None:
    """Errors: InputError where `path` is no file."""
    if path.is_dir():
        raise InputError(field, what, f"{path}, which is a folder")
    if not path.is_file():
        raise InputError(field, what, f"{path}, which does not exist")


def to_file_frame(gaussians: Gaussians, field: str) -> Gaussians:
    """A float32 copy on the CPU in the frame of files. Errors: InputError for none, NaN or inf."""
    if len(gaussians) == 0:
        raise InputError(field, "at least one Gaussian", "an empty splat")
    bad = gaussians.check_finite()
    if bad is not None:
        raise InputError(field, "finite Gaussians", f"a splat whose {bad} holds NaN or inf")
    return flip_frame(gaussians.detach().map(lambda x: x.to("cpu", torch.float32)))


def to_world(gaussians: Gaussians, path: Path, field: str) -> Gaussians:
    """What a file holds, in our world, without rows that nothing can draw; a line says how many went.

    Errors: InputError for no Gaussians.
    """
    if len(gaussians) == 0:
        raise InputError(field, "at least one Gaussian", f"{path} with none")
    usable = without_bad_rows(gaussians, path)
    if len(usable) == 0:
        got = f"{path} with {len(gaussians):,} that hold NaN, inf or a rotation of length 0"
        raise InputError(field, "at least one Gaussian that can be drawn", got)
    flipped = flip_frame(usable)
    return replace(flipped, quats=-flipped.quats)  # the same rotation: what a PLY was given comes back to the last bit


def near_origin(places: NDArray[np.float64], path: Path) -> torch.Tensor:  # [N, 3] -> [N, 3] float32
    """Places as float32. Where that would cost what the file holds (coordinates of a map, say), they are moved first.

    Says by how much, and says where a file's own numbers are that coarse already.
    """
    finite = places[np.isfinite(places).all(axis=-1)]
    with np.errstate(over="ignore", invalid="ignore"):
        plain = places.astype(np.float32)
        if len(finite) < 2:
            return torch.from_numpy(plain)
        low, high = np.quantile(finite, [0.01, 0.99], axis=0)
        size = float((high - low).max()) / 2
        step = float(np.spacing(np.float32(np.abs(low + high).max() / 2)))
        if not step > FINE * size:
            return torch.from_numpy(plain)
        lost = float(np.abs(finite - finite.astype(np.float32)).max())
    if not lost > 0:
        if size > 0:
            log.warning("%s: its places are stored in steps of %.2g units, in an object of %.3g", path, step, 2 * size)
        return torch.from_numpy(plain)
    centre = np.round((low + high) / 2)
    moved = ", ".join(f"{-v:+,.0f}" for v in centre)
    log.warning("%s: far from the origin, where float32 has steps of %.2g units; moved by (%s)", path, step, moved)
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy((places - centre).astype(np.float32))
