"""Best of n: which of several short runs to finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from ..errors import InputError
from ..gaussians import Gaussians
from ..prompts import ViewPrompts
from ..settings import Knob, Setting
from ..teachers.teacher import Teacher
from .measure import Measure
from .teacher_scores import pictures_for_teacher, teacher_scores

SHARE = 0.2
"""Of a run's steps that a trial takes, where nothing else is said."""
BestOf = Annotated[
    int,
    Knob(
        "Tries so many seeds, from the seed on, for a few steps each; the teacher chooses which of them is finished. "
        "1: no trials. Good: 4.",
        1,
        64,
        1,
    ),
]
TrialSteps = Annotated[
    int,
    Knob(
        "Steps of each trial of best_of. 0: a fifth of all steps.",
        0,
        1_000_000,
        1,
        advanced=True,
    ),
]
BEST_OF = Setting("best_of", int, BestOf.__metadata__[0], 1)  # type: ignore[attr-defined]
TRIAL_STEPS = Setting("trial_steps", int, TrialSteps.__metadata__[0], 0)  # type: ignore[attr-defined]


def trial_length(steps: int, given: int) -> int:
    """Steps of a trial. Errors: InputError where it would be longer than the run."""
    if given > steps:
        raise InputError("trial_steps", f"at most the {steps} steps of a run", given)
    return given or max(1, round(SHARE * steps))


def judge_trial(
    teacher: Teacher, prompts: ViewPrompts, gaussians: Gaussians, size: int, renderer: str = "auto"
) -> list[Measure]:
    """What the teacher thinks of a trial: directions, Janus rate, prompt."""
    pictures = pictures_for_teacher(gaussians, size, renderer)
    return teacher_scores(teacher, prompts, pictures, noises=1).measures()


def best_trial(trials: Sequence[Sequence[Measure]]) -> int:
    """The trial whose ranks add up to the least, each measure counted alike; equal values share a rank.

    Of equal sums the one with the higher prompt measure, then the first.
    """
    totals = [0.0] * len(trials)
    for place, first in enumerate(trials[0]):
        values = [measures[place].value or 0.0 for measures in trials]
        signed = [-value if first.better == "higher" else value for value in values]
        for i, mine in enumerate(signed):
            totals[i] += sum(other < mine for other in signed) + sum(other == mine for other in signed) / 2
    prompt = [next((m.value or 0.0 for m in measures if m.name == "prompt"), 0.0) for measures in trials]
    return min(range(len(trials)), key=lambda i: (totals[i], -prompt[i], i))
