"""Gaussians <-> ComfyUI's SPLAT, which is activated and in the frame of 3DGS files (`dreamer_core.frames`)."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import Types
from torch import Tensor

from ...dreamer_core.bad_rows import drawable, without_bad_rows
from ...dreamer_core.errors import InputError
from ...dreamer_core.frames import flip_frame
from ...dreamer_core.gaussians import HARMONICS, Gaussians

log = logging.getLogger(__name__)

TENSORS = ("positions", "scales", "rotations", "opacities", "sh")
"""What a SPLAT consists of."""
MADE = "the node that made it is at fault"


def items(splat: Types.SPLAT) -> list[Gaussians]:
    """Every object of a batch at its real length, in the SPLAT's own frame, float32 on the CPU.

    Rows that nothing can draw (NaN, inf, a rotation of length 0) are left out, which a line says.
    Errors: InputError for what is no SPLAT.
    """
    if not all(isinstance(getattr(splat, name, None), Tensor) for name in TENSORS):
        got = "nothing" if splat is None else f"a {type(splat).__name__}"
        raise InputError("splat", "a SPLAT", got, "link an output that has one")
    lengths = _lengths(splat)
    batch = len(lengths)
    names = ["the splat"] if batch == 1 else [f"splat {i + 1} of {batch}" for i in range(batch)]
    return [without_bad_rows(_item(splat, i, n), name) for i, (n, name) in enumerate(zip(lengths, names))]


def _lengths(splat: Types.SPLAT) -> list[int]:
    """How many Gaussians each object has. Errors: InputError where tensors do not go together."""
    shapes = {name: tuple(getattr(splat, name).shape) for name in TENSORS}
    batch, padded = (*shapes["positions"], 0, 0)[:2]
    coefficients = shapes["sh"][2] if len(shapes["sh"]) == 4 else 0
    tails = {"positions": (3,), "scales": (3,), "rotations": (4,), "opacities": (1,), "sh": (max(1, coefficients), 3)}
    for name, tail in tails.items():
        known = (batch, padded, *tail)
        if shapes[name] != known and (name, shapes[name]) != ("opacities", known[:2]):
            raise InputError("splat", f"{name} of shape {list(known)}", list(shapes[name]), MADE)
    lengths = [padded] * batch if splat.counts is None else [int(n) for n in splat.counts]
    if len(lengths) != batch or not all(0 <= n <= padded for n in lengths):
        raise InputError("splat", f"{batch} counts from 0 to {padded}", lengths, MADE)
    return lengths


def _item(splat: Types.SPLAT, index: int, length: int) -> Gaussians:
    def rows(tensor: Tensor) -> Tensor:
        # A clone made outside inference mode is a normal tensor, which gradients need.
        return tensor[index, :length].detach().to("cpu", torch.float32).clone()

    sh = rows(splat.sh)
    return Gaussians(
        means=rows(splat.positions),
        quats=rows(splat.rotations),
        log_scales=rows(splat.scales).abs().clamp_min(1e-9).log(),  # an axis has no sign
        logit_opacities=rows(splat.opacities).reshape(length).clamp(1e-6, 1 - 1e-6).logit(),
        sh0=sh[:, :1],
        shN=_whole_degrees(sh[:, 1:]),
    )


def _whole_degrees(higher: Tensor) -> Tensor:  # [N, K, 3] -> [N, 0|3|8|15, 3]
    """An incomplete degree filled up with zeros; what lies above degree 3 is left out, which a line says."""
    there = higher.shape[1]
    if there > HARMONICS[-1]:
        log.warning("the splat: spherical harmonics above degree 3 are left out")
    width = next((k for k in HARMONICS if k >= there), HARMONICS[-1])
    return torch.nn.functional.pad(higher[:, :width], (0, 0, 0, max(0, width - there)))


def refuse_empty(parts: list[Gaussians]) -> list[Gaussians]:
    """The objects. Errors: InputError where there is none, or one has no Gaussian."""
    if not parts or any(len(g) == 0 for g in parts):
        raise InputError("splat", "at least one Gaussian", "an empty splat")
    return parts


def pack(parts: list[Gaussians]) -> Types.SPLAT:
    """A batch from objects that are in the SPLAT's frame already, zero-padded to the longest."""
    longest = max(len(g) for g in parts)
    coefficients = max(1 + g.shN.shape[1] for g in parts)

    def stack(tensors: list[Tensor]) -> Tensor:
        out = tensors[0].new_zeros(len(tensors), longest, *tensors[0].shape[1:])
        for i, tensor in enumerate(tensors):
            out[i, : tensor.shape[0]] = tensor
        return out

    def padded_sh(g: Gaussians) -> Tensor:
        return torch.nn.functional.pad(g.sh, (0, 0, 0, coefficients - g.sh.shape[1]))

    parts = [g.detach().to("cpu") for g in parts]
    same = all(len(g) == longest for g in parts)
    return Types.SPLAT(
        positions=stack([g.means for g in parts]),
        scales=stack([g.scales for g in parts]),
        rotations=stack([torch.nn.functional.normalize(g.quats, dim=-1) for g in parts]),
        opacities=stack([g.opacities[:, None] for g in parts]),
        sh=stack([padded_sh(g) for g in parts]),
        counts=None if same else torch.tensor([len(g) for g in parts]),
    )


def to_splat(gaussians: Gaussians) -> Types.SPLAT:
    """World-frame Gaussians as a SPLAT of one object."""
    return pack([flip_frame(gaussians)])


def from_splat(splat: Types.SPLAT) -> list[Gaussians]:
    """Every object of a SPLAT as world-frame Gaussians."""
    return [flip_frame(g) for g in items(splat)]


def one_from_splat(splat: Types.SPLAT) -> Gaussians:
    """The only object of a SPLAT. Errors: InputError for a batch, and where no Gaussian can be drawn."""
    parts = from_splat(splat)
    if len(parts) != 1:
        raise InputError("splat", "one object", f"a batch of {len(parts)}", "give them one at a time")
    if len(parts[0]) == 0:
        given = int(splat.positions.shape[1]) if splat.counts is None else int(splat.counts[0])
        got = f"{given:,} that hold NaN, inf or a rotation of length 0" if given else "an empty splat"
        raise InputError("splat", "at least one Gaussian", got)
    return parts[0]


def with_changes(splat: Types.SPLAT, made: Gaussians, free: Tensor) -> Types.SPLAT:
    """A SPLAT of one object after an edit: `made` in our world, `free` [N] what of it may have changed.

    Activating and deactivating rounds; so whatever did not change is taken from the SPLAT itself, to the bit. Where
    Gaussians were added or removed, the locked ones come first.
    """
    given, after = one_from_splat(splat), to_splat(made)
    if len(made) != len(given):
        taken = ~free
        for name in FIELDS:
            getattr(after, name)[0, : int(taken.sum())] = _rows(splat, name, taken, after)
        return after
    was, now = dict(given.tensors()), dict(made.detach().to("cpu").tensors())
    for name, parts in FIELDS.items():
        if any(was[part].shape != now[part].shape for part in parts):
            continue
        same = torch.stack([(was[p] == now[p]).reshape(len(given), -1).all(dim=1) for p in parts]).all(dim=0)
        getattr(after, name)[0, same] = _rows(splat, name, same, after)
    return after


def _rows(splat: Types.SPLAT, name: str, which: Tensor, like: Types.SPLAT) -> Tensor:
    """Rows of a tensor of a SPLAT by a mask of the Gaussians that `one_from_splat` gives; harmonics as `like` has."""
    length = int(splat.positions.shape[1]) if splat.counts is None else int(splat.counts[0])
    into = getattr(like, name)
    rows = getattr(splat, name)[0, :length].to(into)[drawable(_item(splat, 0, length))][which]
    if name != "sh":
        return rows
    return torch.nn.functional.pad(rows, (0, 0, 0, into.shape[2] - rows.shape[1]))  # negative: cut off


FIELDS = {
    "positions": ("means",),
    "scales": ("log_scales",),
    "rotations": ("quats",),
    "opacities": ("logit_opacities",),
    "sh": ("sh0", "shN"),
}
"""Of a SPLAT -> those of Gaussians that they are made of."""
