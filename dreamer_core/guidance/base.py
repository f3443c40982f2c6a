"""The interface that all guidance methods share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.predictor import Conditioning, NoisePredictor


@dataclass(frozen=True)
class GuidanceConditioning:
    """The three prompts of a step, each for B samples."""

    positive: Conditioning
    negative: Conditioning
    """The unconditional side of classifier-free guidance."""
    inversion: Conditioning
    """Prompt of the DDIM paths; the empty prompt in the paper."""


@dataclass(frozen=True)
class Timesteps:
    """The discrete timesteps of a step: `s` <= `t`."""

    t: int
    s: int


@dataclass(frozen=True)
class GuidanceResult:
    """What a method returns."""

    gradient: Tensor  # [B, 4, h, w]
    """Gradient of the latents, to be summed, not averaged; without the factor lambda."""
    calls: int
    """Network calls made."""
    samples: int
    """Network evaluations per view, the field's NFE."""


def classifier_free(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, 2207.12598): negative + scale (positive - negative)."""
    return negative + scale * (positive - negative)


def evaluate_together(predictor: NoisePredictor, requests: list[tuple[Tensor, float, Conditioning]]) -> list[Tensor]:
    """Noise predictions of several (x [B, 4, h, w], sigma, cond) in one batched call with per-sample sigma."""
    x = torch.cat([r[0] for r in requests])
    sigma = torch.cat([r[0].new_full((r[0].shape[0],), r[1]) for r in requests])
    cond = Conditioning.cat([r[2] for r in requests])
    return list(predictor.eps(x, sigma, cond).split([r[0].shape[0] for r in requests]))
