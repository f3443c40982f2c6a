"""What a run will cost, before it is made: network evaluations, and time after two steps that were timed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..guidance import sample_timesteps
from ..orbit import sample_orbit
from ..prompts import PromptProcessor
from ..teachers.multiview.group import group_azimuths
from ..teachers.noise_levels import scaled_linear_sigmas
from ..teachers.teacher import Conditioning, PlainTeacher, Teacher
from .loop import optimize
from .memory import used_bytes
from .randomness import step_generator
from .recipe import OptimizeConfig
from .state import OptimizationState

TIMED_STEPS = 2
SAMPLE = 100
"""Steps of the schedule whose evaluations are counted."""


class _Free(PlainTeacher):
    """A network that costs nothing."""

    sigmas = scaled_linear_sigmas()

    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        return torch.zeros_like(x)

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError("guidance works on latents")


def evaluations_per_step(config: OptimizeConfig, prompts: PromptProcessor) -> float:
    """Mean network evaluations per view and step over the whole run: the method is run on a network of zeros."""
    total, z, network = 0, torch.zeros(1, 4, 1, 1), _Free()
    for i in range(SAMPLE):
        step = i * config.steps // SAMPLE
        cameras = sample_orbit(config.cameras, 1, 64, step, step_generator(0, i, "cameras"))
        times = sample_timesteps(config.guidance, step, step_generator(0, i, "timestep"), config.progress(step))
        cond = prompts.at(cameras)
        total += config.guidance.method(network, z, z, times, cond).samples
    return total / SAMPLE


def views_per_step(config: OptimizeConfig, azimuths: Tensor | None) -> float:
    """Mean views of a step over the whole run; some steps look at a multi-view teacher's group from `azimuths`."""
    if azimuths is None:
        return config.views
    share = sum(config.multiview_at(i * config.steps // SAMPLE) for i in range(SAMPLE)) / SAMPLE
    return (1 - share) * config.views + share * len(azimuths)


@dataclass(frozen=True)
class Cost:
    """What a run takes."""

    steps: int
    evaluations: int
    """Of the network, over the whole run and all views."""
    seconds: float
    """Estimated from steps that were timed; the number of Gaussians at the start."""
    peak: int
    """Bytes: the most that a GPU had allocated; on a processor, what the process held."""
    gaussians: int
    """At the start."""
    most_gaussians: int
    """What density control lets there be; as at the start where it is off."""


def measure(
    teacher: Teacher, prompts: PromptProcessor, config: OptimizeConfig, start: Gaussians, renderer: str = "auto"
) -> Cost:
    """The cost of `config` from `start` on, after two steps that are timed and thrown away, and one before them.

    The first step compiles kernels and is not counted. What guidance takes grows with the evaluations, which differ
    from step to step; all else grows with the views.
    """
    state = OptimizationState.create(start, config.learning_rates)
    reports = list(optimize(state, teacher, prompts, replace(config, steps=1 + TIMED_STEPS), renderer))[1:]
    azimuths = group_azimuths(teacher)
    seen = [len(azimuths) if r.group and azimuths is not None else config.views for r in reports]
    counted = sum(r.network_evaluations * views for r, views in zip(reports, seen))
    guidance = sum(r.seconds.get("guidance", 0.0) for r in reports)
    others = sum(r.total_seconds for r in reports) - guidance
    each = evaluations_per_step(config, prompts)
    views = views_per_step(config, azimuths)
    seconds = config.steps * views * (each * guidance / max(counted, 1) + others / sum(seen))
    growing = config.density.enabled
    return Cost(
        steps=config.steps,
        evaluations=round(config.steps * views * each),
        seconds=seconds,
        peak=max(max(r.memory for r in reports), used_bytes(start.device)),
        gaussians=len(start),
        most_gaussians=max(len(start), config.density.max_gaussians) if growing else len(start),
    )
