"""Classifier Score Distillation (arXiv 2310.19415)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps, evaluate_together


def csd(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    progress: float,
    last_empty: float = 0.5,
) -> GuidanceResult:
    """grad = (1 - a) (e_y - b1 e_neg - b2 e_''), at x_t = z + sigma_t n; (b1, b2) ramps from (1, 0) to (1/2, 1/2).

    `progress` in [0, 1] is where the run is, `last_empty` is b2 at its end. Only the classifier part of guidance is
    left (sec. 4.2).
    """
    sigma = float(predictor.sigmas[steps.t])
    x_t = z + sigma * noise
    prompts = (cond.positive, cond.negative, cond.inversion)
    positive, negative, empty = evaluate_together(predictor, [(x_t, sigma, prompt) for prompt in prompts])
    b1, b2 = 1.0 - progress * last_empty, progress * last_empty
    weight = sigma**2 / (1.0 + sigma**2)  # 1 - a
    return GuidanceResult(weight * (positive - b1 * negative - b2 * empty), calls=1, samples=3)
