"""Trajectory Score Matching (Dreamer XL, arXiv 2405.11252)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.moves import euler_step, invert
from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise


def tsm(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    cfg: float = 7.5,
    gamma: float = 0.3,
    stride: int = 200,
) -> GuidanceResult:
    """Both DDIM paths start at x_s and share its noise, so the error that inversion accumulated cancels.

        e_s  = eps(x_s, s, '')            x_s by DDIM inversion of z
        x_mu = x_s + (sigma_mu - sigma_s) e_s,   x_t = x_s + (sigma_t - sigma_s) e_s
        grad = sigma_t (e_cfg(x_t, t) - eps(x_mu, mu, ''))

    `gamma` in [0, 1] is the paper's fraction: mu = s + gamma (t - s). 0 is ISM, and takes ISM's path bit for bit.
    """
    mu = steps.s + round(gamma * (steps.t - steps.s))
    sigma_s, sigma_mu, sigma_t = (float(predictor.sigmas[i]) for i in (steps.s, mu, steps.t))
    x_s, calls = invert(predictor, z, steps.s, cond.inversion, noise, stride)
    e_s = predictor.eps(x_s, x_s.new_full((x_s.shape[0],), sigma_s), cond.inversion)
    x_t = euler_step(x_s, e_s, sigma_s, sigma_t)
    also = []
    if mu > steps.s:
        also.append((euler_step(x_s, e_s, sigma_s, sigma_mu), sigma_mu, cond.inversion))
    e_cfg, rest, samples = guided_noise(predictor, x_t, sigma_t, cond, cfg, also)
    target = rest[0] if rest else e_s
    return GuidanceResult(sigma_t * (e_cfg - target), calls=calls + 2, samples=calls + 1 + samples)
