"""Interval Score Matching (LucidDreamer, arXiv 2311.11284)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..teachers.teacher import Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps
from .method import CfgScale, Method
from .tsm import TSM


@dataclass(frozen=True)
class ISM(Method):
    """Interval Score Matching (LucidDreamer, 2311.11284).

    grad = sigma_t (e_cfg(x_t, t) - eps(x_s, s, '')): TSM with mu at s.
    """

    name = "ism"
    offset_noise = TSM.offset_noise
    cfg: CfgScale = 7.5

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        return TSM(gamma=0.0, cfg=self.cfg)(predictor, z, noise, steps, cond)
