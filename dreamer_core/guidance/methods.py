"""The settings of the gradient: which method, and where on the noise schedule it looks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch

from ..errors import InputError
from ..settings import Choice, Knob, Settings
from ..teachers.moves import FIRST_TIMESTEP
from ..teachers.noise_levels import TIMESTEPS
from .asd import ASD
from .base import Timesteps
from .csd import CSD
from .ism import ISM
from .method import Method
from .sdi import SDI
from .sds import SDS
from .sds_bridge import SDSBridge
from .tsm import TSM

TeacherChoice = Literal["auto", "few_step", "many_step", "published"]
METHODS: tuple[type[Method], ...] = (TSM, ISM, SDS, CSD, SDI, ASD, SDSBridge)
"""Every guidance method; a new one is a file beside these and a name here."""


@dataclass(frozen=True)
class GuidanceConfig(Settings):
    """The gradient: which method, and where on the noise schedule it looks."""

    group: ClassVar[str] = "guidance"

    method: Annotated[Method, Choice("The score distillation method.", flag=True, of=METHODS)] = field(
        default_factory=TSM
    )
    t_min: Annotated[
        int, Knob("Lowest timestep drawn, of 1000. Published: 21.", 1, TIMESTEPS - 1, 1, was="guidance.t_range")
    ] = 21
    t_max: Annotated[
        int,
        Knob(
            "Highest timestep drawn after the warm-up, of 1000. Published: 500. Good: 400 to 700.",
            1,
            TIMESTEPS - 1,
            1,
            was="guidance.t_range",
        ),
    ] = 500
    warmup_steps: Annotated[
        int,
        Knob(
            "Steps during which higher timesteps are drawn too. Published: 750. Good: 0 to a third of all steps.",
            0,
            1_000_000,
            1,
        ),
    ] = 750
    t_widening: Annotated[
        int,
        Knob(
            "Timesteps added to t_max at step 0; fades over the warm-up. Published: 480. Good: 0 to 480.",
            0,
            998,
            1,
            advanced=True,
        ),
    ] = 480
    weight: Annotated[
        float, Knob("Factor of the gradient, lambda (unitless). Published: 0.1.", 1e-4, 10.0, 0.005, advanced=True)
    ] = 0.1
    delta: Annotated[
        int, Knob("Timesteps between s and t. Published: 80; 250 for a head.", 1, 500, 1, advanced=True)
    ] = 80
    delta_widening: Annotated[
        int,
        Knob(
            "Timesteps added to delta at step 0; fades over the warm-up. Published: 20; -150 for a head.",
            -499,
            500,
            1,
            advanced=True,
        ),
    ] = 20
    stride: Annotated[
        int,
        Knob(
            "Timesteps per step of DDIM inversion; smaller is slower. Published: 200. Good: 50 to 200.",
            1,
            999,
            1,
            advanced=True,
        ),
    ] = 200
    offset_noise: Annotated[
        float | None,
        Knob(
            "Strength of noise that shifts whole channels, as a factor. Published: 0.1 for tsm and ism, 0 for the "
            "others. Good: 0 to 0.2. none: what the method's paper has.",
            0.0, 1.0, 0.01, advanced=True,
        ),
    ] = None  # fmt: skip
    """None: the method's own."""
    flip: Annotated[
        float,
        Knob(
            "Probability of mirroring the batch, 0 to 1. Published: 0.5. 0 for text or logos.",
            0.0,
            1.0,
            0.05,
            advanced=True,
        ),
    ] = 0.5
    rescale: Annotated[
        float,
        Knob(
            "How far guided predictions are brought back to the contrast of the prompt's own, against burnt colours. "
            "Published: 0; 0.7 for sampling with zero terminal SNR (2305.08891). Good: 0 to 0.7.",
            0.0, 1.0, 0.05, advanced=True,
        ),
    ] = 0.0  # fmt: skip
    teacher: Annotated[
        TeacherChoice,
        Knob(
            "What the model is, for values that nobody set, such as the guidance scale. auto goes by patches and file "
            "names. few_step: Turbo, Lightning, LCM, Hyper, DMD2. many_step: none of these. published: change nothing.",
            flag=True, advanced=True,
        ),
    ] = "auto"  # fmt: skip
    t_lift: Annotated[
        int,
        Knob(
            "Timesteps added to t_min at step 0; fades over the warm-up. Above 0, the run goes from coarse to fine "
            "(2306.12422). Published: 0. Good: 0 to 600.",
            0,
            998,
            1,
            advanced=True,
        ),
    ] = 0
    cfg_fade: Annotated[
        float,
        Knob(
            "How much of cfg above 1 is gone at the end of the schedule, as a share; it fades evenly. Against burnt "
            "colours. Published: 0. Good: 0 to 0.9.",
            0.0,
            1.0,
            0.05,
            advanced=True,
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_min > self.t_max:
            raise InputError("guidance.t_min", f"at most t_max, {self.t_max}", self.t_min)
        if self.delta + self.delta_widening < 1:
            least = 1 - self.delta
            raise InputError("guidance.delta_widening", f"at least {least}, or delta ends below 1", self.delta_widening)

    @property
    def noise_offset(self) -> float:
        """Strength of the per-channel offset in force."""
        return self.method.offset_noise if self.offset_noise is None else self.offset_noise

    def method_at(self, progress: float) -> Method:
        """The method with the guidance scale in force at `progress` in [0, 1] of the schedule."""
        scale: float | None = getattr(self.method, "cfg", None)
        if scale is None or not self.cfg_fade:
            return self.method
        now: dict[str, Any] = {"cfg": 1.0 + (scale - 1.0) * (1.0 - self.cfg_fade * progress)}
        return replace(self.method, **now)

    def warmup(self, step: int) -> float:
        """w, from 1 at step 0 to 0 at `warmup_steps`."""
        return 1.0 - min(step / self.warmup_steps, 1.0) if self.warmup_steps > 0 else 0.0


def sample_timesteps(config: GuidanceConfig, step: int, generator: torch.Generator, progress: float = 0.0) -> Timesteps:
    """t uniform in [t_min, t_max], both higher during the warm-up, unless the method says it; s = max(t - delta, 1).

    `progress` in [0, 1] is where the run is in its schedule.
    """
    w = config.warmup(step)
    t = config.method.timestep(progress)
    if t is None:
        high = min(config.t_max + int(w * config.t_widening), TIMESTEPS - 1)
        low = min(config.t_min + int(w * config.t_lift), high)
        t = int(torch.randint(low, high + 1, (1,), generator=generator))
    delta = int(config.delta + w * config.delta_widening)
    return Timesteps(t, max(t - delta, FIRST_TIMESTEP), config.t_min, config.stride, progress)
