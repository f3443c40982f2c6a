"""Everything that decides the result of a run, and everything that does not. The defaults are the published values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from ..errors import InputError
from ..guidance import ClipConfig, GuidanceConfig
from ..orbit import OrbitConfig
from ..settings import Knob, Settings
from ..teachers.multiview.cameras import HALF_WIDTH
from .backgrounds import BackgroundConfig
from .cleanup import CleanupConfig
from .density_config import DensityConfig
from .learning_rates import LearningRates
from .memory import MemoryMode
from .regularizers import RegularizerConfig

SCALE_NOISE = 0.2**0.5 / 4
"""The released code's."""


@dataclass(frozen=True)
class Recipe(Settings):
    """What decides the state of a run at a step, besides its start, prompt and teacher."""

    views: Annotated[
        int,
        Knob("Views per step; more is slower and smoother. Published: 4. Good: 2 to 4.", 1, 64, 1, flag=True, unset=0),
    ] = 4
    resolution: Annotated[
        int,
        Knob(
            "Pixels per side, a multiple of 64. Published: 1024. Good: 768 or 1024 for SDXL, 128 for the starter.",
            64,
            2048,
            64,
            flag=True,
            unset=0,
        ),
    ] = 1024
    seed: Annotated[
        int, Knob("Seed of cameras, timesteps and noise. Any whole number from 0.", 0, 2**64 - 1, 1, flag=True)
    ] = 0
    depth_share: Annotated[
        float,
        Knob(
            "Share of the steps that look at depth instead of colour, 0 to 1. Published: 0.2. Good: 0 to 0.3.",
            0.0,
            1.0,
            0.01,
            advanced=True,
        ),
    ] = 0.2
    scale_noise: Annotated[
        float,
        Knob(
            "Random change of the Gaussians' sizes in every view, as a share. Published: 0.112. Good: 0 to 0.2.",
            0.0,
            1.0,
            0.005,
            advanced=True,
        ),
    ] = SCALE_NOISE
    schedule_steps: Annotated[
        int,
        Knob(
            "Steps over which learning rates and timesteps go from first to last. Published: 2,500. Good: as many as "
            "steps.",
            1, 1_000_000, 1, advanced=True, unset=0,
        ),
    ] = 2500  # fmt: skip
    multiview_share: Annotated[
        tuple[float, float],
        Knob(
            "Share of the steps that ask a multi-view adapter about all its views at once, at the schedule's "
            "beginning; the others ask the plain teacher. No effect without an adapter. Good: 0.5.",
            0.0, 1.0, 0.05, advanced=True, ends=("first", "last"), ordered=False,
            second_tip="The same at the schedule's end. Good: 0.1.",
        ),
    ] = (0.0, 0.0)  # fmt: skip
    multiview_half_width: Annotated[
        float,
        Knob(
            "World units that an adapter's view shows to each side. 1.1: an object of radius 1 fills it as objects do "
            "in the adapter's training.",
            0.1, 10.0, 0.05, advanced=True,
        ),
    ] = HALF_WIDTH  # fmt: skip
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    cameras: OrbitConfig = field(default_factory=OrbitConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    learning_rates: LearningRates = field(default_factory=LearningRates)
    density: DensityConfig = field(default_factory=DensityConfig)
    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution % 64:
            raise InputError("resolution", "a multiple of 64, at least 64", self.resolution, "try 1024")

    def multiview_at(self, step: int) -> float:
        """The share of the steps around `step` that ask about groups of views."""
        first, last = self.multiview_share
        return first + (last - first) * self.progress(step)

    def progress(self, step: int) -> float:
        """How far `step` is through the schedule, in [0, 1]."""
        return min(step / self.schedule_steps, 1.0)


@dataclass(frozen=True)
class OptimizeConfig(Recipe):
    """One optimisation: its recipe, and what leaves the state at a step as it is.

    `steps` says only when to stop, so a run can be extended.
    """

    steps: Annotated[
        int,
        Knob(
            "Optimisation steps. Published: 2,500. Good: 800 to 2,500 for SDXL, 300 for the starter, which "
            "fewer leave unfinished.",
            1,
            1_000_000,
            1,
            flag=True,
            unset=0,
        ),
    ] = 2500
    memory: Annotated[
        MemoryMode,
        Knob(
            "low: encodes view by view, computes twice what it could keep, two samples at a time; slower. high: keeps "
            "everything. Otherwise the fastest way that fits the free memory. The result is the same.",
            advanced=True, flag=True, unset="auto",
        ),
    ] = "auto"  # fmt: skip
    recompute_encoder: Annotated[
        bool,
        Knob("Encode twice, the second time view by view: less memory, the same gradient.", secret=True),
    ] = False
    cleanup: CleanupConfig = field(default_factory=lambda: CleanupConfig(enabled=False))
    """Of the finished object; the published code has none."""

    @property
    def recipe(self) -> Recipe:
        """What decides the state at a step."""
        return Recipe(**{f.name: getattr(self, f.name) for f in fields(Recipe)})
