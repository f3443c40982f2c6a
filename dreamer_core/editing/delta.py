"""Delta Denoising Score (Hertz et al., arXiv 2304.07090) for any method of guidance.

    grad = method(z, what should be) - method(z_0, what is)

with z the latents of the picture that changes, z_0 those of the incoming splat from the same camera, and the same noise
and timestep on both sides. What the method gets wrong about the picture as it was is subtracted, and so is all that the
two texts have in common. With SDS this is the published form, with TSM its form along two trajectories.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..guidance.base import GuidanceConditioning, GuidanceResult, Timesteps, WeightedNegative
from ..guidance.method import Method
from ..teachers.teacher import Conditioning, Teacher


def both(first: GuidanceConditioning, second: GuidanceConditioning) -> GuidanceConditioning:
    """The samples of two conditionings, one after another. Errors: ValueError where one lacks the other's negatives."""

    def joined(a: Conditioning, b: Conditioning) -> Conditioning:
        return Conditioning.cat([a, b])

    negatives = tuple(
        WeightedNegative(joined(a.cond, b.cond), torch.cat([a.weight, b.weight]))
        for a, b in zip(first.perpendicular, second.perpendicular, strict=True)
    )
    artefact = None
    if first.artefact is not None and second.artefact is not None:
        artefact = joined(first.artefact, second.artefact)
    return GuidanceConditioning(
        joined(first.positive, second.positive),
        joined(first.negative, second.negative),
        joined(first.inversion, second.inversion),
        negatives,
        artefact,
    )


def delta(
    method: Method,
    predictor: Teacher,
    z: Tensor,  # [B, C, h, w]
    z_incoming: Tensor,  # [B, C, h, w]
    noise: Tensor,  # [B, C, h, w]
    steps: Timesteps,
    target: GuidanceConditioning,
    source: GuidanceConditioning,
) -> GuidanceResult:
    """The difference of the method's gradients, both made in one batch of 2B samples."""
    batch = len(z)
    doubled = torch.cat([noise, noise])
    found = method(predictor, torch.cat([z, z_incoming]), doubled, steps, both(target, source))
    gradient = found.gradient[:batch] - found.gradient[batch:]
    return GuidanceResult(gradient, found.calls, 2 * found.samples)
