"""What the teacher itself thinks of pictures: from which side they were taken, and whether they show the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras
from ..gaussians import Gaussians
from ..media import render_views
from ..prompts import ViewPrompts
from ..teachers.noise_levels import noise_level
from ..teachers.teacher import Conditioning, Request, Teacher
from .measure import Measure

AZIMUTHS = tuple(float(a) for a in range(-180, 180, 30))
"""Twelve views; every one lies within 30 degrees of the middle of its side, never between two."""
ELEVATION, RADIUS, FOV = 15.0, 3.6, 0.6
TIMES = (300, 500, 700)
"""Timesteps of SDXL's schedule; there noise hides details, not the shape."""


@dataclass(frozen=True)
class TeacherScores:
    """Mean squared errors of the predicted noise; views from `AZIMUTHS`."""

    errors: Tensor  # [V, W]
    """Under the words of each direction, float64."""
    empty: Tensor  # [V]
    """Under the negative prompt's words, or none."""
    words: tuple[str, ...]
    azimuths: tuple[float, ...]
    protocol: str

    @property
    def expected(self) -> list[str]:
        """The direction of every view."""
        return [side_of(azimuth, self.words) for azimuth in self.azimuths]

    @property
    def found(self) -> list[str]:
        """The direction whose words explain each view best."""
        return [self.words[i] for i in self.errors.argmin(dim=1).tolist()]

    def measures(self) -> list[Measure]:
        """The three numbers."""
        pairs = list(zip(self.expected, self.found))
        away = [found for expected, found in pairs if expected != "front"]
        own = torch.stack([row[self.words.index(side)] for row, side in zip(self.errors, self.expected)])
        gain = float(((self.empty - own) / self.empty.clamp_min(1e-12)).mean())
        front = sum(found == "front" for found in away) / max(len(away), 1)
        right = sum(a == b for a, b in pairs) / len(pairs)
        named = f"share of views named right, chance is {1 / len(self.words):.2f}; {self.protocol}"
        return [
            Measure("direction", right, named),
            Measure("janus", front, f"share of the other views named front; {self.protocol}", "lower"),
            Measure("prompt", gain, f"share of the noise's error that the prompt takes away; {self.protocol}"),
        ]


def side_of(azimuth: float, words: tuple[str, ...]) -> str:
    """The direction that an azimuth in degrees is nearest to, of those there are."""
    turned = (azimuth + 180.0) % 360.0 - 180.0
    if abs(turned) <= 45.0:
        return "front"
    if abs(turned) >= 135.0:
        return "back"
    return "side" if "side" in words else "left" if turned > 0 else "right"


def cameras(size: int) -> Cameras:
    """The views that the teacher is shown."""
    return orbit_cameras(list(AZIMUTHS), ELEVATION, RADIUS, FOV, size)


def teacher_scores(
    teacher: Teacher,
    prompts: ViewPrompts,
    images: Tensor,  # [V, H, W, 3] from `azimuths`, on white
    *,
    azimuths: tuple[float, ...] = AZIMUTHS,
    times: tuple[int, ...] = TIMES,
    noises: int = 2,
    seed: int = 0,
) -> TeacherScores:
    """The teacher as a classifier of pictures (Li et al., 2303.16203); needs no other weights.

    Every picture gets the same noises at the same timesteps; the words under which the noise is predicted best name its
    side. Works view by view, so that memory stays that of a few samples.
    """
    words = {**prompts.directions, "": prompts.negative}
    errors = torch.zeros(len(images), len(words), dtype=torch.float64)
    with torch.no_grad():
        for view, image in enumerate(images):
            z = teacher.encode(image[None].to(prompts.front.tokens.device))
            generator = torch.Generator().manual_seed(seed)
            for t in (t for t in times for _ in range(noises)):
                noise = torch.randn(z.shape[1:], generator=generator).to(z)
                errors[view] += _errors(teacher, z, noise, noise_level(teacher.sigmas, t), list(words.values()))
    errors /= len(times) * noises
    size = images.shape[1]
    protocol = (
        f"{len(images)} views of {size} px at elevation {ELEVATION:g}, words {', '.join(prompts.directions)}, "
        f"{noises} noises at t {', '.join(map(str, times))}"
    )
    return TeacherScores(errors[:, :-1], errors[:, -1], tuple(prompts.directions), azimuths, protocol)


def _errors(teacher: Teacher, z: Tensor, noise: Tensor, sigma: float, words: list[Conditioning]) -> Tensor:
    """Mean squared errors [W] of the noise in one latent [1, C, h, w] under every conditioning."""
    x = z + sigma * noise
    predicted = teacher.predict([Request(x, sigma, cond, "positive") for cond in words])
    return torch.stack([(eps - noise).square().mean() for eps in predicted]).double().cpu()


def pictures_for_teacher(gaussians: Gaussians, size: int, renderer: str = "auto") -> Tensor:
    """What `teacher_scores` looks at, [V, size, size, 3]."""
    return torch.stack(list(render_views(gaussians, cameras(size), (1.0, 1.0, 1.0), renderer)))
