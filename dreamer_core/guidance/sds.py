"""Score Distillation Sampling (DreamFusion, arXiv 2209.14988)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..teachers.noise_levels import noise_level
from ..teachers.teacher import Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise
from .method import PATH, CfgScale, Method


@dataclass(frozen=True)
class SDS(Method):
    """Score Distillation Sampling (DreamFusion, 2209.14988).

    grad = sigma_t (e_cfg(z + sigma_t n, t) - n), fresh noise n every step; s is not used.
    """

    name = "sds"
    ignores = PATH
    cfg: CfgScale = 100.0

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        sigma = noise_level(predictor.sigmas, steps.t)
        e_cfg, _, samples = guided_noise(predictor, z + sigma * noise, sigma, cond, self.cfg)
        return GuidanceResult(sigma * (e_cfg - noise), calls=1, samples=samples)
