"""Score Distillation Sampling (DreamFusion, arXiv 2209.14988)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise


def sds(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    cfg: float = 100.0,
) -> GuidanceResult:
    """grad = sigma_t (e_cfg(z + sigma_t n, t) - n), fresh noise n every step; `steps.s` is not used."""
    sigma_t = float(predictor.sigmas[steps.t])
    x_t = z + sigma_t * noise
    e_cfg, _, samples = guided_noise(predictor, x_t, sigma_t, cond, cfg)
    return GuidanceResult(sigma_t * (e_cfg - noise), calls=1, samples=samples)
