"""Score Distillation via Inversion (arXiv 2405.15891)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.moves import euler_step
from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise


def sdi(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w], added to the inverted noise
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    cfg: float = 7.5,
    inversion_steps: int = 10,
    inversion_cfg: float = -7.5,
    extra_noise: float = 0.3,
) -> GuidanceResult:
    """grad = sqrt(1 - a) (e_cfg(z + sigma_t k, t) - k), with k the noise that leads from z to x_t.

    k comes from a text-conditional DDIM inversion with guidance -7.5 in steps of a tenth of the schedule, plus
    0.3 sqrt(1 - a) n; these three figures are parameters. t falls over the run (`GuidanceConfig.t_annealing`).
    """
    sigmas = predictor.sigmas
    stride = -(-len(sigmas) // inversion_steps)
    x, now, samples, calls = z, 0, 0, 0
    while now < steps.t:
        after = min(now + stride, steps.t)
        eps, _, n = guided_noise(predictor, x, float(sigmas[now]), cond, inversion_cfg)
        x = euler_step(x, eps, float(sigmas[now]) if now else 0.0, float(sigmas[after]))
        now, samples, calls = after, samples + n, calls + 1
    sigma = float(sigmas[steps.t])
    root = sigma / (1.0 + sigma**2) ** 0.5  # sqrt(1 - a)
    k = (x - z) / sigma + extra_noise * root * noise
    e_cfg, _, n = guided_noise(predictor, z + sigma * k, sigma, cond, cfg)
    return GuidanceResult(root * (e_cfg - k), calls=calls + 1, samples=samples + n)
