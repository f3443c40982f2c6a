"""The interface that all guidance methods share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..teachers.teacher import Conditioning, Teacher


@dataclass(frozen=True)
class WeightedNegative:
    """A prompt to avoid, as far as it is perpendicular to the positive direction (Perp-Neg, 2304.04968)."""

    cond: Conditioning
    weight: Tensor  # [B], 0 or below


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


def classifier_free(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, 2207.12598): negative + scale (positive - negative)."""
    return negative + scale * (positive - negative)


def evaluate_together(predictor: Teacher, requests: list[tuple[Tensor, float, Conditioning]]) -> list[Tensor]:
    """Noise predictions of several (x [B, C, h, w], sigma, cond) in one batched call with per-sample sigma."""
    x = torch.cat([r[0] for r in requests])
    sigma = torch.cat([r[0].new_full((r[0].shape[0],), r[1]) for r in requests])
    cond = Conditioning.cat([r[2] for r in requests])
    return list(predictor.eps(x, sigma, cond).split([r[0].shape[0] for r in requests]))


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
    also: Sequence[tuple[Tensor, float, Conditioning]] = (),
) -> tuple[Tensor, list[Tensor], int]:
    """e_cfg(x), the predictions of the requests in `also`, and the evaluations per view; one network call.

        e_cfg = e_neg + scale (d + sum_i w_i perp(e_i - e_neg, d)),  d = e_pos - e_neg

    The sum is Perp-Neg's (2304.04968, eq. 8); without such negatives this is classifier-free guidance.
    """
    requests = [(x, sigma, cond.positive), (x, sigma, cond.negative)]
    requests += [(x, sigma, negative.cond) for negative in cond.perpendicular]
    requests += also
    positive, negative, *rest = evaluate_together(predictor, requests)
    if not cond.perpendicular:
        return classifier_free(positive, negative, scale), rest, len(requests)
    direction = total = positive - negative
    for avoided, eps in zip(cond.perpendicular, rest):
        weight = avoided.weight.to(x)[:, None, None, None]
        total = total + weight * perpendicular_part(eps - negative, direction)
    return negative + scale * total, rest[len(cond.perpendicular) :], len(requests)
