"""Interval Score Matching (LucidDreamer, arXiv 2311.11284)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps
from .tsm import tsm


def ism(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    cfg: float = 7.5,
    stride: int = 200,
) -> GuidanceResult:
    """grad = sigma_t (e_cfg(x_t, t) - eps(x_s, s, '')): TSM with mu at s."""
    return tsm(predictor, z, noise, steps, cond, cfg=cfg, gamma=0.0, stride=stride)
