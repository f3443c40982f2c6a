"""Gaussians that nothing can draw, among others that are fine: left out, counted and said.

An opacity of +inf (fully opaque) or -inf (invisible) and a log-scale of -inf (flat) are legal: 1, 0 and 0 after the
activation. They become numbers at the edge of what the optimiser can use. NaN, a place or colour that is infinite, a
scale that float32 cannot hold and a rotation of length 0 are not.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch
from torch import Tensor

from .gaussians import Gaussians

log = logging.getLogger(__name__)

SURE = math.log((1 - 1e-6) / 1e-6)
"""Logit of an opacity of 1, as `Gaussians.from_activated` has it; its negative is that of 0."""
FLAT = math.log(1e-9)
"""Log-scale of an axis without extent, as `Gaussians.from_activated` has it."""
LARGEST = math.log(torch.finfo(torch.float32).max)
"""Log-scale above which float32 has no scale."""


def without_bad_rows(gaussians: Gaussians, source: object) -> Gaussians:
    """The Gaussians that can be drawn, legal infinities as numbers; says under `source` how many were left out."""
    g = _with_numbers(gaussians)
    broken, turnless = _bad(g)
    bad = broken | turnless
    count = int(bad.sum())
    if count == 0:
        return g
    reasons = ((int(broken.sum()), "with NaN or inf"), (int(turnless.sum()), "with a rotation of length 0"))
    said = " and ".join(f"{n:,} {reason}" for n, reason in reasons if n)
    log.warning("%s: %s of %s Gaussians left out (%s)", source, f"{count:,}", f"{len(g):,}", said)
    return g[~bad]


def drawable(gaussians: Gaussians) -> Tensor:  # [N] bool
    """Which of them `without_bad_rows` keeps."""
    broken, turnless = _bad(_with_numbers(gaussians))
    return ~(broken | turnless)


def _with_numbers(g: Gaussians) -> Gaussians:
    """Legal infinities as numbers, and rotations whose square float32 cannot hold at a length that it can."""
    opacities, scales, quats = g.logit_opacities, g.log_scales, g.quats
    if bool(torch.isinf(opacities).any()):
        sure = opacities.new_tensor(SURE)
        opacities = torch.where(torch.isinf(opacities), torch.copysign(sure, opacities), opacities)
    if bool(torch.isneginf(scales).any()):
        scales = torch.where(torch.isneginf(scales), scales.new_tensor(FLAT), scales)
    largest = quats.abs().amax(dim=-1, keepdim=True)
    odd = ((largest < 1e-12) | (largest > 1e12)) & (largest > 0) & torch.isfinite(largest)
    if bool(odd.any()):
        quats = torch.where(odd, quats / torch.where(odd, largest, torch.ones_like(largest)), quats)
    return replace(g, logit_opacities=opacities, log_scales=scales, quats=quats)


def _bad(g: Gaussians) -> tuple[Tensor, Tensor]:
    """Which hold NaN or inf [N], and which others have a rotation of length 0 [N]."""
    broken = _broken(g)
    return broken, ~broken & (g.quats.abs().amax(dim=-1) == 0)


def _broken(g: Gaussians) -> Tensor:  # [N] bool
    broken = ~torch.isfinite(g.logit_opacities) | (g.log_scales > LARGEST).any(dim=-1)
    for value in (g.means, g.quats, g.log_scales, g.sh0, g.shN):
        broken = broken | ~torch.isfinite(value).flatten(1).all(dim=-1)
    return broken
