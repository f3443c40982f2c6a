"""One run from its first step to its result, for the command line and the node alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from ..editing.work import Work
from ..errors import DivergenceError
from ..gaussians import Gaussians
from ..prompts import PromptProcessor
from ..teachers.teacher import Teacher
from .apart import views_apart
from .cleanup import CleanupReport, clean
from .learning_rates import LearningRates
from .loop import optimize
from .recipe import OptimizeConfig
from .report import StepReport
from .state import OptimizationState

log = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 120.0
"""Between two saves of a run that goes on."""


class Store(Protocol):
    """Where the state of a run is kept."""

    def load(self, steps: int, rates: LearningRates, device: torch.device) -> OptimizationState | None:
        """The latest state with at most `steps` steps; None where there is nothing to go on from."""
        ...

    def save(self, state: OptimizationState) -> None:
        """Keep the state in place of what the same run kept before."""
        ...


@dataclass
class Run:
    """A state on its way to `config.steps`."""

    state: OptimizationState
    config: OptimizeConfig
    store: Store
    cleaned: CleanupReport = field(default_factory=CleanupReport)
    """What `result` removed."""
    work: Work | None = None
    """Of a run that changes a splat: the splat, and what of it may change."""

    @classmethod
    def begin(
        cls, config: OptimizeConfig, store: Store, start: Gaussians | None, device: torch.device,
        work: Work | None = None,
    ) -> Run:  # fmt: skip
        """Go on from the stored state, else from `start`, which only a run with a stored state may do without.

        With `work` the run starts from what of it may change.
        """
        state = store.load(config.steps, config.learning_rates, device)
        if state is None:
            start = start if work is None else work.changing
            assert start is not None
            state = OptimizationState.create(start.to(device), config.learning_rates)
        return cls(state, config, store, work=work)

    @property
    def finished(self) -> bool:
        return self.state.step >= self.config.steps

    def go(
        self,
        teacher: Teacher,
        prompts: PromptProcessor,
        renderer: str,
        on_step: Callable[[StepReport], bool | None],
    ) -> None:
        """Make steps until the last one, or until `on_step` says True or raises.

        The state is saved every two minutes and at the end, whatever ends it. A save on the way that fails is told and
        tried again later.
        Errors: DivergenceError where the optimisation cannot go on or ends in NaN, OSError where the last save fails,
        and whatever `on_step` raises.
        """
        device = self.state.params["means"].device
        if self.work is not None:  # once, not whenever it is shown
            self.work = replace(self.work, original=self.work.original.to(device))
        try:
            with views_apart(teacher, self.config.views, self.config.resolution, device) as apart:
                self._make_steps(apart, prompts, renderer, on_step)
        finally:
            self.keep()

    def _make_steps(
        self,
        teacher: Teacher,
        prompts: PromptProcessor,
        renderer: str,
        on_step: Callable[[StepReport], bool | None],
    ) -> None:
        state, saved = self.state, time.monotonic()
        original = None if self.work is None else self.work.original
        for report in optimize(state, teacher, prompts, self.config, renderer, original):
            if on_step(report):
                return
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                try:
                    self.keep()
                except OSError as error:  # a disk that is full now may have room later
                    log.warning("The run goes on, but could not be saved: %s", error)
                saved = time.monotonic()
        bad = state.gaussians.check_finite()
        if bad is not None:
            raise DivergenceError(
                f"{bad} of the Gaussians holds NaN or inf after step {state.step}; lower the learning rates or the "
                "guidance scale"
            )

    def keep(self) -> None:
        """Save the state as it is; not one in the middle of an update, and in place of a bad one the last good one."""
        if self.state.updating:
            return
        good = self.state.last_good(self.config.learning_rates)
        if good is not None:
            self.state = good
            self.store.save(good)

    def shown(self) -> Gaussians:
        """What pictures show: the whole splat as it is now, in front of the cameras."""
        gaussians = self.state.gaussians
        return gaussians if self.work is None else self.work.original.to(gaussians.device).whole(gaussians)

    @property
    def count(self) -> int:
        """How many Gaussians the splat has now."""
        changing = len(self.state.params["means"])
        return changing if self.work is None else changing + len(self.work.original.locked)

    def result(self) -> Gaussians:
        """What the run has made so far; of a finished one without what the clean-up removes.

        A splat that was changed is the whole splat, in its own place and size.
        """
        gaussians = self.state.gaussians.detach()
        if self.work is not None:
            return self.work.result(gaussians)
        if self.finished:
            gaussians, self.cleaned = clean(gaussians, self.config.cleanup)
        return gaussians
