"""Timesteps as noise levels: published timesteps are those of SDXL's own schedule, whatever schedule a teacher has."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

TIMESTEPS = 1000
"""Of the schedule that published timesteps count."""


def scaled_linear_sigmas(beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = TIMESTEPS) -> Tensor:
    """sigma(t) [T] of the Stable Diffusion schedule (betas linear in their square roots), float64."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1.0 - betas, dim=0)
    return ((1.0 - alphas) / alphas).sqrt()


@cache
def _published() -> Tensor:
    return scaled_linear_sigmas()


def noise_level(sigmas: Tensor, t: int) -> float:
    """Of a teacher's levels `sigmas` [T], the one nearest in the logarithm to timestep `t` of SDXL's schedule."""
    return float(sigmas[(sigmas.double().log() - _published()[t].log()).abs().argmin()])
