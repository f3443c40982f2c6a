"""Asynchronous Score Distillation (ScaleDreamer, arXiv 2407.02040)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise


def asd(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    cfg: float = 7.5,
    t_min: int,
    shift: float = 0.1,
) -> GuidanceResult:
    """grad = (1 - a) (e_cfg(x_t, t) - e_y(x_t+, t+)), both from the same noise; t+ = t + shift (t - t_min).

    Asynchronous timesteps: a network that sees more noise errs less, which stands in for a tuned copy.
    """
    later = min(steps.t + round(shift * (steps.t - t_min)), len(predictor.sigmas) - 1)
    sigma, sigma_later = float(predictor.sigmas[steps.t]), float(predictor.sigmas[later])
    also = [(z + sigma_later * noise, sigma_later, cond.positive)]
    e_cfg, (target,), samples = guided_noise(predictor, z + sigma * noise, sigma, cond, cfg, also)
    weight = sigma**2 / (1.0 + sigma**2)  # 1 - a
    return GuidanceResult(weight * (e_cfg - target), calls=1, samples=samples)
