"""Gaussians <-> ComfyUI's SPLAT, which is activated and in the frame of 3DGS files (`dreamer_core.frames`)."""

from __future__ import annotations

import torch
from comfy_api.latest import Types
from torch import Tensor

from ...dreamer_core.errors import InputError
from ...dreamer_core.frames import flip_frame
from ...dreamer_core.gaussians import Gaussians


def items(splat: Types.SPLAT) -> list[Gaussians]:
    """Every object of a batch at its real length, in the SPLAT's own frame, float32 on the CPU."""
    batch, padded = splat.positions.shape[:2]
    lengths = [padded] * batch if splat.counts is None else [int(n) for n in splat.counts]
    return [_item(splat, i, n) for i, n in enumerate(lengths)]


def _item(splat: Types.SPLAT, index: int, length: int) -> Gaussians:
    def rows(tensor: Tensor) -> Tensor:
        # A clone made outside inference mode is a normal tensor, which gradients need.
        return tensor[index, :length].detach().to("cpu", torch.float32).clone()

    sh = rows(splat.sh)
    return Gaussians(
        means=rows(splat.positions),
        quats=rows(splat.rotations),
        log_scales=rows(splat.scales).clamp_min(1e-9).log(),
        logit_opacities=rows(splat.opacities).reshape(length).clamp(1e-6, 1 - 1e-6).logit(),
        sh0=sh[:, :1],
        shN=sh[:, 1:],
    )


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
    """The only object of a SPLAT. Errors: InputError for a batch, an empty splat, NaN or inf."""
    parts = from_splat(splat)
    if len(parts) != 1:
        raise InputError("splat", "one object", f"a batch of {len(parts)}", "give them one at a time")
    if len(parts[0]) == 0:
        raise InputError("splat", "at least one Gaussian", "an empty splat")
    bad = parts[0].check_finite()
    if bad is not None:
        raise InputError("splat", "finite numbers", f"NaN or inf in its {bad}")
    return parts[0]
