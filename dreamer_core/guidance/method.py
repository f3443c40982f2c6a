"""What every guidance method is: a dataclass of its own settings with one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from ..settings import Knob, Settings
from ..teachers.teacher import Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps

PATH = ("delta", "delta_widening", "stride")
"""Shared settings of the way to x_s, which methods without DDIM paths do not read."""
CfgScale = Annotated[
    float,
    Knob(
        "Classifier-free guidance scale (unitless). Published: 7.5 or 100, by method. Good: 5 to 15 where it is 7.5, "
        "25 to 100 where it is 100.",
        0.0, 1000.0, 0.5, flag=True,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Method(Settings, ABC):
    """A score distillation method; its docstring begins with its name and paper, for help and tooltips."""

    group: ClassVar[str] = "guidance"
    offset_noise: ClassVar[float] = 0.0
    """Strength of the per-channel offset that the method's paper adds to the noise."""
    ignores: ClassVar[tuple[str, ...]] = ()
    """Shared settings of guidance that the method does not read."""
    combines: ClassVar[bool] = True
    """Whether it makes classifier-free guidance (`Teacher.combine`), where a user's patches of guidance take part."""
    needs_artefacts: ClassVar[bool] = False
    """Whether the prompt must have words for artefacts."""

    @abstractmethod
    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w] clean latents
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        """The gradient of the latents, without the factor lambda; makes no graph."""

    def timestep(self, progress: float) -> int | None:
        """The t of a step that is `progress` in [0, 1] through the schedule; None draws it at random."""
        return None
