"""Classifier Score Distillation (arXiv 2310.19415)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..settings import Knob
from ..teachers.noise_levels import noise_level
from ..teachers.teacher import Request, Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps
from .method import PATH, Method


@dataclass(frozen=True)
class CSD(Method):
    """Classifier Score Distillation (2310.19415).

    grad = (1 - a) (e_y - b1 e_neg - b2 e_''), at x_t = z + sigma_t n; (b1, b2) ramps over the schedule from (1, 0) to
    (1/2, 1/2). Only the classifier part of guidance is left (sec. 4.2).
    """

    name = "csd"
    ignores = (*PATH, "rescale", "cfg_fade")
    combines = False
    csd_empty: Annotated[
        float,
        Knob(
            "At the end, this share of what is subtracted comes from the empty prompt. Published: 0.5. Good: 0 to 1.",
            0.0, 1.0, 0.05,
        ),
    ] = 0.5  # fmt: skip

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        sigma = noise_level(predictor.sigmas, steps.t)
        x_t = z + sigma * noise
        positive, negative, empty = predictor.predict(
            [
                Request(x_t, sigma, cond.positive, "positive"),
                Request(x_t, sigma, cond.negative, "negative"),
                Request(x_t, sigma, cond.inversion, "inversion"),
            ]
        )
        b1, b2 = 1.0 - steps.progress * self.csd_empty, steps.progress * self.csd_empty
        weight = sigma**2 / (1.0 + sigma**2)  # 1 - a
        return GuidanceResult(weight * (positive - b1 * negative - b2 * empty), calls=1, samples=3)
