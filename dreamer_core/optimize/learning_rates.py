"""Adam's learning rates over a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..settings import Knob, Settings

Rates = tuple[float, float]


def _rates(of: str) -> Knob:
    tip = f"Learning rate of {of} at the schedule's beginning and end."
    return Knob(tip, 1e-12, 10.0, 1e-5, ends=("first", "last"), ordered=False, advanced=True)


@dataclass(frozen=True)
class LearningRates(Settings):
    """Adam's rates, each (first, last), log-linear over `schedule_steps`."""

    group: ClassVar[str] = "learning_rates"

    means: Annotated[Rates, _rates("the positions, in world units")] = (5.6e-4, 5.6e-6)
    quats: Annotated[Rates, _rates("the rotations")] = (1e-3, 2e-4)
    log_scales: Annotated[Rates, _rates("the logarithms of the scales")] = (5e-3, 1e-3)
    logit_opacities: Annotated[Rates, _rates("the logits of the opacities")] = (0.05, 0.05)
    sh0: Annotated[Rates, _rates("the base colours")] = (5e-3, 3e-3)
    shN: Annotated[Rates, _rates("the higher spherical harmonics")] = (2.5e-4, 2.5e-4)
    betas: Annotated[
        Rates,
        Knob(
            "Adam's betas: how long it remembers gradients and their squares.",
            0.0, 0.999999, 0.001, ends=("first", "last"), ordered=False, advanced=True,
        ),
    ] = (0.9, 0.999)  # fmt: skip

    def at(self, name: str, step: int, schedule_steps: int) -> float:
        """The rate of field `name` at `step`; the last value holds after the schedule's end."""
        first, last = getattr(self, name)
        share = min(step / max(schedule_steps, 1), 1.0)
        return float(first * (last / first) ** share)
