"""Deterministic moves along the probability-flow ODE in VE form, where a DDIM step is an Euler step."""

from __future__ import annotations

import torch
from torch import Tensor

from .noise_levels import noise_level
from .teacher import Conditioning, Request, Teacher

FIRST_TIMESTEP = 1
"""Where the noise enters: SDXL's scheduler shifts all timesteps by one (`steps_offset`)."""


def nearest_timestep(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """Discrete timesteps [B] (int64) whose sigma is nearest in the logarithm to `sigma` [B]."""
    log_table = sigmas.to(sigma.device).log()
    distance = (sigma.to(log_table).log()[:, None] - log_table[None]).abs()
    return distance.argmin(dim=1)


def euler_step(x: Tensor, eps: Tensor, sigma_from: float, sigma_to: float) -> Tensor:
    """One DDIM step (Song et al., 2010.02502, eq. 12 with eta = 0) of VE latents `x` between two noise levels."""
    return x + (sigma_to - sigma_from) * eps


def offset_noise(shape: torch.Size, strength: float, generator: torch.Generator) -> Tensor:
    """Unit Gaussian noise [B, C, h, w] plus `strength` times one Gaussian per channel, alike for the batch; CPU."""
    noise = torch.randn(shape, generator=generator)
    if strength:
        noise = noise + strength * torch.randn(1, shape[1], 1, 1, generator=generator)
    return noise


def invert(
    predictor: Teacher,
    z: Tensor,  # [B, C, h, w] clean latents
    s: int,
    cond: Conditioning,
    noise: Tensor,  # [B, C, h, w], enters at `FIRST_TIMESTEP`
    stride: int = 200,
) -> tuple[Tensor, int]:
    """VE latents x_s after DDIM inversion from timestep 1 to `s`, and the number of network calls.

    Calls: ceil((s - 1) / stride). The noise enters only at the lowest timestep (ISM, 2311.11284, sec. 3.3). `cond` is
    the inversion prompt.
    """
    sigmas = predictor.sigmas
    now, calls = FIRST_TIMESTEP, 0
    sigma = noise_level(sigmas, now)
    x = z + sigma * noise
    while now < s:
        after = min(now + stride, s)
        sigma_after = noise_level(sigmas, after)
        (eps,) = predictor.predict([Request(x, sigma, cond, "inversion")])
        x = euler_step(x, eps, sigma, sigma_after)
        now, sigma, calls = after, sigma_after, calls + 1
    return x, calls
