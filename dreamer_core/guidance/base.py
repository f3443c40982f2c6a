"""The interface that all guidance methods share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..teachers.teacher import Conditioning, Request, Teacher


@dataclass(frozen=True)
class WeightedNegative:
    """A prompt to avoid, as far as it is perpendicular to the positive direction (Perp-Neg, 2304.04968)."""

    cond: Conditioning
    weight: Tensor  # [B], 0 or below

    def __getitem__(self, index: slice) -> WeightedNegative:
        return WeightedNegative(self.cond[index], self.weight[index])


@dataclass(frozen=True)
class GuidanceConditioning:
    """The three prompts of a step, each for B samples."""

    positive: Conditioning
    negative: Conditioning
    """The unconditional side of classifier-free guidance."""
    inversion: Conditioning
    """Prompt of the DDIM paths; the empty prompt in the paper."""
    perpendicular: tuple[WeightedNegative, ...] = ()
    """Negatives of Perp-Neg: other directions than the camera's."""
    artefact: Conditioning | None = None
    """The positive prompt with words for artefacts, for SDS-Bridge."""

    def __getitem__(self, index: slice) -> GuidanceConditioning:
        """The same of some of the samples."""
        return GuidanceConditioning(
            self.positive[index],
            self.negative[index],
            self.inversion[index],
            tuple(one[index] for one in self.perpendicular),
            None if self.artefact is None else self.artefact[index],
        )


@dataclass(frozen=True)
class Timesteps:
    """Where on the noise schedule a step looks; timesteps as `noise_levels` counts them, `s` <= `t`."""

    t: int
    s: int
    t_min: int = 1
    """The lowest t that may be drawn."""
    stride: int = 200
    """Timesteps per step of DDIM inversion."""
    progress: float = 0.0
    """How far the run is through its schedule, in [0, 1]."""


@dataclass(frozen=True)
class GuidanceResult:
    """What a method returns."""

    gradient: Tensor  # [B, C, h, w]
    """Gradient of the latents, to be summed, not averaged; without the factor lambda."""
    calls: int
    """Network calls made."""
    samples: int
    """Network evaluations per view, the field's NFE."""

    @staticmethod
    def cat(parts: Sequence[GuidanceResult]) -> GuidanceResult:
        """Of some samples after those of others."""
        if len(parts) == 1:
            return parts[0]
        gradient = torch.cat([part.gradient for part in parts])
        return GuidanceResult(gradient, sum(part.calls for part in parts), parts[0].samples)


def perpendicular_part(a: Tensor, b: Tensor) -> Tensor:
    """The part of every `a` [B, C, h, w] that is perpendicular to its `b`."""
    dims = (1, 2, 3)
    share = (a * b).sum(dims, keepdim=True) / b.square().sum(dims, keepdim=True).clamp_min(1e-12)
    return a - share * b


def guided_noise(
    predictor: Teacher,
    x: Tensor,  # [B, C, h, w]
    sigma: float,
    cond: GuidanceConditioning,
    scale: float,
    also: Sequence[Request] = (),
) -> tuple[Tensor, list[Tensor], int]:
    """e_cfg(x), the predictions of the requests in `also`, and the evaluations per view.

        e_cfg = e_neg + scale (d + sum_i w_i perp(e_i - e_neg, d)),  d = e_pos - e_neg

    The sum is Perp-Neg's (2304.04968, eq. 8); without such negatives this is classifier-free guidance. Either way it is
    the teacher that combines them, so that a user's patches of guidance take part.
    """
    positive = Request(x, sigma, cond.positive, "positive")
    negative = Request(x, sigma, cond.negative, "negative")
    avoided = [Request(x, sigma, n.cond, "negative") for n in cond.perpendicular]
    requests = [positive, negative, *avoided, *also]
    e_positive, e_negative, *rest = predictor.predict(requests)
    if cond.perpendicular:
        direction = total = e_positive - e_negative
        for one, eps in zip(cond.perpendicular, rest):
            weight = one.weight.to(x)[:, None, None, None]
            total = total + weight * perpendicular_part(eps - e_negative, direction)
        e_positive = e_negative + total
    guided = predictor.combine(positive, negative, e_positive, e_negative, scale)
    return guided, rest[len(avoided) :], len(requests)
