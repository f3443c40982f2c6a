"""What a teacher itself draws from each direction, and how well it tells directions apart: look before you distil."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor

from .cameras import orbit_cameras
from .guidance import guided_noise
from .guidance.rescale import with_rescale
from .optimize.cost import Cost
from .optimize.profiles import ORDINARY, Fitted, Profile
from .prompts import ViewPrompts
from .settings import Knob, Settings
from .teachers.moves import euler_step
from .teachers.noise_levels import noise_level
from .teachers.teacher import Request, Teacher

DIRECTIONS = {"front": 0.0, "left": 90.0, "back": 180.0, "right": -90.0}
"""Azimuths in degrees of the pictures, in their order; left and right are the object's own."""
ELEVATION = 15.0
TIMES = (300, 500, 700)
"""Timesteps of SDXL's schedule at which predictions are compared; there noise hides details, not the shape."""


@dataclass(frozen=True)
class SamplingConfig(Settings):
    """How the pictures are drawn."""

    sampling_steps: Annotated[
        int,
        Knob(
            "DDIM steps of each picture. 20 to 30; 4 to 8 for few-step models. 0: what suits the teacher.",
            0,
            1000,
            1,
            advanced=True,
        ),
    ] = 0
    sampling_cfg: Annotated[
        float,
        Knob(
            "Guidance scale of the pictures (unitless). 4 to 8; 1 to 2 for few-step models. 0: what suits the teacher.",
            0.0,
            100.0,
            0.5,
            advanced=True,
        ),
    ] = 0.0

    def for_teacher(self, profile: Profile) -> SamplingConfig:
        """With what suits a teacher where nothing was said."""
        return SamplingConfig(self.sampling_steps or profile.sampling_steps, self.sampling_cfg or profile.sampling_cfg)


def sampling_levels(sigmas: Tensor, steps: int) -> list[float]:
    """Noise levels of `steps` DDIM steps from the teacher's highest down to 0, evenly spaced in timesteps and from the
    last one on (the "trailing" spacing of 2305.08891, table 2), which few-step and zero-SNR models need."""
    count = len(sigmas)
    index = torch.linspace(count, 0, min(steps, count) + 1)[:-1].round().long() - 1
    return [*sigmas[index].tolist(), 0.0]


def draw(
    teacher: Teacher,
    prompts: ViewPrompts,
    *,
    resolution: int,
    sampling: SamplingConfig,
    rescale: float = 0.0,
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Tensor:  # [V, C, h, w]
    """Latents of the four directions by DDIM with classifier-free guidance, each from a noise of its own.

    `rescale` is as `guidance.rescale`.

    `on_step(done, of)` is called after every step.
    """
    cameras = orbit_cameras(list(DIRECTIONS.values()), ELEVATION, 3.0, 0.6, resolution)
    cond, sampling = prompts.at(cameras), sampling.for_teacher(ORDINARY)
    teacher = with_rescale(teacher, rescale)
    with torch.no_grad():
        grey = teacher.encode(torch.full((1, resolution, resolution, 3), 0.5))
        levels = sampling_levels(teacher.sigmas, sampling.sampling_steps)
        noise = torch.randn(len(cameras), *grey.shape[1:], generator=torch.Generator().manual_seed(seed))
        x = levels[0] * noise.to(grey)
        for done, (now, after) in enumerate(pairwise(levels), 1):
            eps, _, _ = guided_noise(teacher, x, now, cond, sampling.sampling_cfg)
            x = euler_step(x, eps, now, after)
            on_step(done, len(levels) - 1)
    return x


@dataclass(frozen=True)
class Recognition:
    """Which words explain each picture best."""

    errors: Tensor  # [V, W]
    """Mean squared error of the predicted noise of each picture under each of the words."""
    words: tuple[str, ...] = ("front", "side", "back")
    """`ViewPrompts.directions`."""

    def own(self, direction: str) -> str:
        """The words that a direction was drawn with."""
        return direction if direction in self.words else "side"

    @property
    def found(self) -> dict[str, str]:
        """By direction, the words under which the noise is predicted best."""
        best = self.errors.argmin(dim=1).tolist()
        return {direction: self.words[i] for direction, i in zip(DIRECTIONS, best)}

    @property
    def confused(self) -> list[str]:
        """Directions whose picture fits other words better than its own."""
        return [direction for direction, word in self.found.items() if word != self.own(direction)]

    @property
    def margins(self) -> dict[str, float]:
        """By direction, how much worse the best other words are, as a share of the error; below 0 where confused."""
        margins = {}
        for direction, row in zip(DIRECTIONS, self.errors.tolist()):
            own = row[self.words.index(self.own(direction))]
            others = [e for word, e in zip(self.words, row) if word != self.own(direction)]
            margins[direction] = (min(others) - own) / max(own, 1e-12)
        return margins


def recognise(
    teacher: Teacher, prompts: ViewPrompts, pictures: Tensor, *, noises: int = 2, seed: int = 0
) -> Recognition:
    """The teacher as a classifier of its own pictures, latents [V, C, h, w] (Li et al., 2303.16203).

    Every picture gets the same noises at three timesteps; the words under which the noise is predicted best win. A
    teacher that cannot tell its own pictures apart cannot tell an object where its front is.
    """
    words = prompts.directions
    errors = torch.zeros(len(pictures), len(words), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for t in TIMES:
            sigma = noise_level(teacher.sigmas, t)
            for _ in range(noises):
                noise = torch.randn(pictures.shape[1:], generator=generator).to(pictures)
                x = pictures + sigma * noise
                predicted = teacher.predict([Request(x, sigma, c.expand(len(x)), "positive") for c in words.values()])
                found = [(eps - noise).square().mean(dim=(1, 2, 3)) for eps in predicted]
                errors += torch.stack(found, dim=1).double().cpu()
    return Recognition(errors / (len(TIMES) * noises), tuple(words))


def findings(fit: Fitted, recognition: Recognition, cost: Cost, free: int | None = None) -> str:
    """What a user should know before a run, in lines; `free` are bytes that a run could take."""
    told = ", ".join(f"{name} {recognition.margins[name]:+.0%}" for name in DIRECTIONS)
    lines = [f"Teacher: {fit}", f"Directions told apart by (share of the error): {told}"]
    for name in recognition.confused:
        lines.append(f"  {name}: fits the words for {recognition.found[name]} better than its own")
    if recognition.confused:
        lines.append("  expect several fronts: other words for the directions, Perp-Neg or another checkpoint may help")
    lines.append(f"Network evaluations: {cost.evaluations:,} in {cost.steps:,} steps")
    lines.append(f"Time: about {duration(cost.seconds)}, with as many Gaussians as at the start")
    available = "" if free is None else f" of {free / 2**30:.1f} GiB free before"
    lines.append(f"Memory: {cost.peak / 2**30:.1f} GiB{available}")
    more = f", {cost.most_gaussians:,} at the most" if cost.most_gaussians > cost.gaussians else ""
    lines.append(f"Gaussians: {cost.gaussians:,}{more}")
    return "\n".join(lines)


def summary(fit: Fitted, recognition: Recognition, cost: Cost) -> str:
    """The same in one line."""
    confused = [f"takes its {name} for {recognition.found[name]}" for name in recognition.confused]
    told = "; ".join(confused) or "tells its sides apart"
    begin = f"{fit.note} · " if fit.note else ""
    taken = f"about {duration(cost.seconds)} · {cost.evaluations:,} evaluations · {cost.gaussians:,} Gaussians"
    return f"{begin}{told} · {taken}"


def duration(seconds: float) -> str:
    """3 h 12 min, 4 min or 20 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
