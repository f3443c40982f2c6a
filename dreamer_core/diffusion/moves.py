"""Deterministic moves along the probability-flow ODE in VE form, where a DDIM step is an Euler step."""

from __future__ import annotations

import torch
from torch import Tensor

from .predictor import Conditioning, NoisePredictor


def scaled_linear_sigmas(beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = 1000) -> Tensor:
    """sigma(t) [T] of the Stable Diffusion schedule (betas linear in their square roots), float64."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1.0 - betas, dim=0)
    return ((1.0 - alphas) / alphas).sqrt()


def nearest_timestep(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """Discrete timesteps [B] (int64) whose sigma is nearest in the logarithm to `sigma` [B]."""
    log_table = sigmas.to(sigma.device).log()
    distance = (sigma.to(log_table).log()[:, None] - log_table[None]).abs()
    return distance.argmin(dim=1)


def euler_step(x: Tensor, eps: Tensor, sigma_from: float, sigma_to: float) -> Tensor:
    """One DDIM step (Song et al., 2010.02502, eq. 12 with eta = 0) of VE latents `x` between two noise levels."""
    return x + (sigma_to - sigma_from) * eps


def offset_noise(shape: torch.Size, strength: float, generator: torch.Generator) -> Tensor:
    """Unit Gaussian noise [B, 4, h, w] plus `strength` times one Gaussian per channel, on the CPU."""
    noise = torch.randn(shape, generator=generator)
    if strength:
        noise = noise + strength * torch.randn(*shape[:2], 1, 1, generator=generator)
    return noise


def invert(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    s: int,
    cond: Conditioning,
    noise: Tensor,  # [B, 4, h, w], enters at timestep 0
    stride: int = 200,
) -> tuple[Tensor, int]:
    """VE latents x_s after DDIM inversion from timestep 0 to `s`, and the number of network calls: ceil(s / stride).

    The noise enters only at the lowest timestep (ISM, 2311.11284, sec. 3.3). `cond` is the inversion prompt.
    """
    sigmas = predictor.sigmas
    x = z + float(sigmas[0]) * noise
    now, calls = 0, 0
    while now < s:
        nxt = min(now + stride, s)
        sigma = float(sigmas[now])
        eps = predictor.eps(x, x.new_full((x.shape[0],), sigma), cond)
        x = euler_step(x, eps, sigma, float(sigmas[nxt]))
        now, calls = nxt, calls + 1
    return x, calls
