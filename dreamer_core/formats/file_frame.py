"""Between a file's Gaussians and ours: checks, and the one change of frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import InputError
from ..frames import flip_frame
from ..gaussians import Gaussians


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
    """What a file holds, in our world; a rotation of length 0 becomes none.

    Errors: InputError for no Gaussians, NaN or inf.
    """
    if len(gaussians) == 0:
        raise InputError(field, "at least one Gaussian", f"{path} with none")
    bad = gaussians.check_finite()
    if bad is not None:
        raise InputError(field, "finite numbers", f"{path} with NaN or inf in {bad}")
    none = gaussians.quats.new_tensor([1.0, 0.0, 0.0, 0.0])
    quats = torch.where((gaussians.quats == 0).all(dim=-1, keepdim=True), none, gaussians.quats)
    flipped = flip_frame(replace(gaussians, quats=quats))
    return replace(flipped, quats=-flipped.quats)  # the same rotation: what a PLY was given comes back to the last bit
