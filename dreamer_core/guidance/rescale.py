"""Guidance that keeps the contrast of the prompt's own prediction (Lin et al., 2305.08891, sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..teachers.teacher import Request, Teacher


def velocity(eps: Tensor, x: Tensor, sigma: float) -> Tensor:
    """v [B, C, h, w] of predicted noise at VE latents x: v = (eps - sigma z) / sqrt(1 + sigma^2), z = x - sigma eps."""
    return (eps - sigma * (x - sigma * eps)) / (1.0 + sigma**2) ** 0.5


def noise_of(v: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The inverse of `velocity`."""
    return (v * (1.0 + sigma**2) ** 0.5 + sigma * x) / (1.0 + sigma**2)


def rescaled(guided: Tensor, positive: Tensor, x: Tensor, sigma: float, share: float) -> Tensor:
    """Guided noise [B, C, h, w] whose v has the deviation of the positive's v for `share`, its own for the rest.

    Large guidance scales widen the spread of a prediction, which shows as burnt colours, most of all with zero
    terminal SNR. Taken of v whatever the network predicts, as ComfyUI's RescaleCFG does for eps- and v-prediction.
    """
    of_guided, of_positive = velocity(guided, x, sigma), velocity(positive, x, sigma)
    dims = (1, 2, 3)
    factor = of_positive.std(dims, keepdim=True) / of_guided.std(dims, keepdim=True).clamp_min(1e-12)
    return noise_of(of_guided * torch.lerp(torch.ones_like(factor), factor, share), x, sigma)


@dataclass(frozen=True)
class RescaledTeacher:
    """A teacher whose combined noise is `rescaled`, behind whatever its own `combine` does."""

    teacher: Teacher
    share: float

    @property
    def sigmas(self) -> Tensor:
        return self.teacher.sigmas

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        return self.teacher.predict(requests)

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        guided = self.teacher.combine(positive, negative, e_positive, e_negative, scale)
        if scale <= 1.0:  # as SDI's inversion: nothing is widened
            return guided
        return rescaled(guided, e_positive, positive.x.to(guided), positive.sigma, self.share)

    def encode(self, images: Tensor) -> Tensor:
        return self.teacher.encode(images)


def with_rescale(teacher: Teacher, share: float) -> Teacher:
    """The teacher itself where nothing is rescaled."""
    return RescaledTeacher(teacher, share) if share else teacher
