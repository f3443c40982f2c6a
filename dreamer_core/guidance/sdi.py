"""Score Distillation via Inversion (arXiv 2405.15891)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..errors import InputError
from ..settings import Knob
from ..teachers.moves import euler_step
from ..teachers.noise_levels import TIMESTEPS, noise_level
from ..teachers.teacher import Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps, guided_noise
from .method import PATH, CfgScale, Method


@dataclass(frozen=True)
class SDI(Method):
    """Score Distillation via Inversion (2405.15891).

    grad = sqrt(1 - a) (e_cfg(z + sigma_t k, t) - k), with k the noise that leads from z to x_t. k comes from a
    text-conditional DDIM inversion with guidance -7.5 in steps of a tenth of the schedule, plus 0.3 sqrt(1 - a) n.
    t falls linearly over the run.
    """

    name = "sdi"
    ignores = (*PATH, "t_min", "t_max", "t_widening", "t_lift", "warmup_steps")
    cfg: CfgScale = 7.5
    t_first: Annotated[
        int,
        Knob(
            "Timestep at step 0, of 1000; it falls over the run. Published: 999.",
            1, TIMESTEPS - 1, 1, was="guidance.t_annealing",
        ),
    ] = TIMESTEPS - 1  # fmt: skip
    t_last: Annotated[
        int,
        Knob(
            "Timestep at the end of the run, of 1000. Published: 200.",
            1, TIMESTEPS - 1, 1, was="guidance.t_annealing",
        ),
    ] = 200  # fmt: skip
    sdi_steps: Annotated[
        int,
        Knob("Steps of the inversion over 1000 timesteps; more is slower. Published: 10.", 1, 100, 1),
    ] = 10
    sdi_cfg: Annotated[
        float, Knob("Guidance scale of the inversion (unitless). Published: -7.5.", -100.0, 100.0, 0.5)
    ] = -7.5
    sdi_noise: Annotated[
        float,
        Knob("Fresh noise on top of the inverted one, as a factor. Published: 0.3. Good: 0 to 1.", 0.0, 10.0, 0.05),
    ] = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_first < self.t_last:
            raise InputError("guidance.t_first", f"at least t_last, {self.t_last}: it falls", self.t_first)

    def timestep(self, progress: float) -> int:
        return round(self.t_first + (self.t_last - self.t_first) * progress)

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w], added to the inverted noise
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        sigmas = predictor.sigmas
        stride = -(-TIMESTEPS // self.sdi_steps)
        x, now, samples, calls = z, 0, 0, 0
        while now < steps.t:
            after = min(now + stride, steps.t)
            level = noise_level(sigmas, now)
            eps, _, n = guided_noise(predictor, x, level, cond, self.sdi_cfg)
            x = euler_step(x, eps, level if now else 0.0, noise_level(sigmas, after))
            now, samples, calls = after, samples + n, calls + 1
        sigma = noise_level(sigmas, steps.t)
        root = sigma / (1.0 + sigma**2) ** 0.5  # sqrt(1 - a)
        k = (x - z) / sigma + self.sdi_noise * root * noise
        e_cfg, _, n = guided_noise(predictor, z + sigma * k, sigma, cond, self.cfg)
        return GuidanceResult(root * (e_cfg - k), calls=calls + 1, samples=samples + n)
