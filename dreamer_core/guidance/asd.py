"""Asynchronous Score Distillation (ScaleDreamer, arXiv 2407.02040)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..settings import Knob
from ..teachers.noise_levels import TIMESTEPS, noise_level
from ..teachers.teacher import Request, Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise
from .method import PATH, CfgScale, Method


@dataclass(frozen=True)
class ASD(Method):
    """Asynchronous Score Distillation (ScaleDreamer, 2407.02040).

    grad = (1 - a) (e_cfg(x_t, t) - e_y(x_t+, t+)), both from the same noise; t+ = t + shift (t - t_min). A network that
    sees more noise errs less, which stands in for a tuned copy.
    """

    name = "asd"
    ignores = PATH
    cfg: CfgScale = 7.5
    asd_shift: Annotated[
        float,
        Knob(
            "How far the second, noisier timestep lies above the first, as a share. Published: 0.1. Good: 0.05 to "
            "0.3.",
            0.0, 1.0, 0.01,
        ),
    ] = 0.1  # fmt: skip

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        later = min(steps.t + round(self.asd_shift * (steps.t - steps.t_min)), TIMESTEPS - 1)
        sigma, sigma_later = noise_level(predictor.sigmas, steps.t), noise_level(predictor.sigmas, later)
        also = [Request(z + sigma_later * noise, sigma_later, cond.positive, "positive")]
        e_cfg, (target,), samples = guided_noise(predictor, z + sigma * noise, sigma, cond, self.cfg, also)
        weight = sigma**2 / (1.0 + sigma**2)  # 1 - a
        return GuidanceResult(weight * (e_cfg - target), calls=1, samples=samples)
