"""Trajectory Score Matching (Dreamer XL, arXiv 2405.11252)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..settings import Knob
from ..teachers.moves import euler_step, invert
from ..teachers.noise_levels import noise_level
from ..teachers.teacher import Request, Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise
from .method import CfgScale, Method

RELEASED_GAMMA = (1.0 - 0.3**2) ** 0.5
"""The released code puts mu at this share of the way for its gamma of 0.3."""


@dataclass(frozen=True)
class TSM(Method):
    """Trajectory Score Matching (Dreamer XL, 2405.11252). Both DDIM paths start at x_s and share its noise, so the
    error that inversion accumulated cancels.

        e_s  = eps(x_s, s, '')            x_s by DDIM inversion of z
        x_mu = x_s + (sigma_mu - sigma_s) e_s,   x_t = x_s + (sigma_t - sigma_s) e_s
        grad = sigma_t (e_cfg(x_t, t) - eps(x_mu, mu, ''))

    mu = s + gamma (t - s), as the paper counts. gamma 0 is ISM, and takes ISM's path bit for bit.
    """

    name = "tsm"
    offset_noise = 0.1
    gamma: Annotated[
        float,
        Knob(
            "Where the reference path ends between s and t, as a fraction. Published: 0.3 in the paper, 0.954 in its "
            "code. 0 is ISM.",
            0.0, 1.0, 0.001, flag=True,
        ),
    ] = RELEASED_GAMMA  # fmt: skip
    cfg: CfgScale = 7.5

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        sigmas = predictor.sigmas
        mu = steps.s + round(self.gamma * (steps.t - steps.s))
        sigma_s, sigma_mu, sigma_t = (noise_level(sigmas, t) for t in (steps.s, mu, steps.t))
        x_s, calls = invert(predictor, z, steps.s, cond.inversion, noise, steps.stride)
        (e_s,) = predictor.predict([Request(x_s, sigma_s, cond.inversion, "inversion")])
        x_t = euler_step(x_s, e_s, sigma_s, sigma_t)
        also = []
        if mu > steps.s:
            also.append(Request(euler_step(x_s, e_s, sigma_s, sigma_mu), sigma_mu, cond.inversion, "inversion"))
        e_cfg, rest, samples = guided_noise(predictor, x_t, sigma_t, cond, self.cfg, also)
        target = rest[0] if rest else e_s
        return GuidanceResult(sigma_t * (e_cfg - target), calls=calls + 2, samples=calls + 1 + samples)
