"""All measures of one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..gaussians import Gaussians
from .a_lpips import a_lpips_scores
from .clip_score import clip_scores
from .coverage import coverage
from .measure import Measure
from .sharpness import sharpness
from .teacher_scores import pictures_for_teacher, teacher_scores
from .views import RESOLUTION, VIEWS, render_turntable

if TYPE_CHECKING:
    from ..prompts import ViewPrompts
    from ..teachers.teacher import Teacher


@dataclass(frozen=True)
class EvaluationConfig:
    """How an object is looked at."""

    views: int = VIEWS
    resolution: int = RESOLUTION
    teacher_resolution: int = 1024
    """Pixels of the pictures that the teacher judges: what it was trained on."""
    noises: int = 2
    weights: Path = Path("metrics")
    """Folder with the encoders of CLIP and the networks of LPIPS."""
    networks: bool = True
    """Whether CLIP and LPIPS are asked, which take most of the time."""


def evaluate(
    gaussians: Gaussians,
    prompt: str,
    config: EvaluationConfig,
    teacher: Teacher | None = None,
    prompts: ViewPrompts | None = None,
    renderer: str = "auto",
) -> list[Measure]:
    """Everything that can be measured of an object; what cannot says why. The teacher is asked where there is one.

    Without a `prompt` there is no CLIP score.
    """
    views = render_turntable(gaussians, renderer, config.views, config.resolution)
    found = [sharpness(views), *coverage(views)]
    if teacher is not None and prompts is not None:
        pictures = pictures_for_teacher(gaussians, config.teacher_resolution, renderer)
        found += teacher_scores(teacher, prompts, pictures, noises=config.noises).measures()
    if config.networks:
        device = gaussians.device if gaussians.device.type == "cuda" else torch.device("cpu")
        found += clip_scores(views, prompt, config.weights, device) if prompt.strip() else []
        found += a_lpips_scores(views, config.weights)
    return found
