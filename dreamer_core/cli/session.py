"""One run with its progress bar, its interrupt and its files."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ..cameras import turntable
from ..editing.work import Work
from ..errors import DivergenceError, InputError
from ..formats import write_ply
from ..gaussians import Gaussians
from ..media import contact_sheet, render_views, write_mp4, write_png
from ..optimize import LearningRates, OptimizationState, OptimizeConfig, StepReport, save_state
from ..optimize.identity import Identity
from ..optimize.memory import MemoryPlan
from ..optimize.run import Run
from ..prompts import PromptProcessor
from ..teachers.teacher import Teacher
from .exports import in_film, recorded, write_exports
from .run_folder import RunFolder, row, versions

WHITE = (1.0, 1.0, 1.0)
ELEVATION = 15.0
"""Degrees above the horizon of the pictures and the film."""


class Interrupt:
    """Set by the first Ctrl-C, which lets the current step finish; the second one stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nFinishing this step; Ctrl-C again stops at once.", file=sys.stderr, flush=True)


@contextmanager
def interruptible(given: Interrupt | None) -> Iterator[Interrupt]:
    """Listens to Ctrl-C, unless somebody else does and has `given` what to ask."""
    if given is not None:
        yield given
        return
    interrupt = Interrupt()
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclass
class Session:
    """A run on its way from the first step to its files; it is the run's store, too."""

    config: OptimizeConfig
    identity: Identity
    renderer: str
    folder: RunFolder
    settings: dict[str, Any]
    """What run.json says of the run."""
    start: Gaussians | None
    """None where only a saved run can go on."""
    device: torch.device
    resumed: bool = False
    """Go on with the run in the folder. Errors: InputError where it has more steps than `config`."""
    exports: tuple[str, ...] = ()
    work: Work | None = None
    """Of a splat that is changed."""
    interrupt: Interrupt | None = None
    """What tells it to stop; None: Ctrl-C."""
    status: str = "running"
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    started: float = field(default_factory=time.perf_counter)
    peak_memory: int = 0

    def __post_init__(self) -> None:
        self.plan: MemoryPlan | None = None
        self.made = Run.begin(self.config, self, self.start, self.device, self.work)
        self.first_step = self.state.step
        self.exported: list[Path] = []
        self.kept: Gaussians | None = None
        self.rows: list[dict[str, Any]] = list(self.folder.read_metrics(self.state.step)) if self.resumed else []

    def go_on_from(self, state: OptimizationState, rows: list[dict[str, Any]]) -> None:
        """Steps that were made already, with their lines of metrics.csv."""
        self.made.state, self.rows = state, list(rows)
        self.first_step = state.step

    @property
    def state(self) -> OptimizationState:
        return self.made.state

    def run(self, teacher: Teacher, prompts: PromptProcessor, plan: MemoryPlan) -> int:
        """Optimise and write all files; 0, or 130 after an interrupt. A failing run keeps what it has, too.

        Errors: DivergenceError where the optimisation fails or leaves Gaussians that are not finite.
        """
        self.plan = plan
        config = replace(self.config, recompute_encoder=plan.recompute_encoder or self.config.recompute_encoder)
        self.made.config = self.config = config
        self.settings = {**self.settings, "config": config}
        self.folder.path.mkdir(parents=True, exist_ok=True)
        if not self.resumed:
            self.folder.clear(keep_trials=self.state.step > 0)  # only the best trial has steps before its run
            self.save_state(self.state)  # what is killed before its first save goes on from here
        self.write_log()
        print("Preparing the renderer ...", file=sys.stderr, flush=True)  # numba compiles it, once
        next(render_views(self.state.gaussians.detach(), turntable(1, 64), WHITE, self.renderer))
        with interruptible(self.interrupt) as interrupt:
            try:
                self.optimise(teacher, prompts, interrupt)
                self.check_result()
                self.make_pictures(interrupt)
                self.status = "interrupted" if interrupt.requested else "complete"
            except BaseException:
                self.status = "failed"
                raise
            finally:
                self.folder.write_metrics(self.rows)
                self.write_log()
        return self.tell()

    def check_result(self) -> None:
        """Errors: DivergenceError for what is no object."""
        bad = self.state.gaussians.check_finite()
        if bad is not None:
            raise DivergenceError(
                f"{bad} of the Gaussians holds NaN or inf after step {self.state.step}; "
                "lower the learning rates (--set learning_rates...=) or the guidance scale (--cfg)"
            )

    def optimise(self, teacher: Teacher, prompts: PromptProcessor, interrupt: Interrupt) -> None:
        """All steps, until the end or an interrupt."""
        from tqdm import tqdm

        with tqdm(total=self.config.steps, initial=self.state.step, unit="step", dynamic_ncols=True) as bar:

            def on_step(report: StepReport) -> bool:
                if report.step == self.first_step:
                    self.folder.remove_pictures()  # of the run that this one extends
                self.rows.append(row(report))
                for name, seconds in report.seconds.items():
                    self.phases[name] += seconds
                self.peak_memory = max(self.peak_memory, report.memory)
                bar.set_postfix_str(figures(report), refresh=False)
                bar.update()
                return interrupt.requested

            self.made.go(teacher, prompts, self.renderer, on_step)

    def load(self, steps: int, rates: LearningRates, device: torch.device) -> OptimizationState | None:
        """The folder's state, where the run goes on. Errors: InputError where it has more than `steps` steps."""
        if not self.resumed:
            return None
        state = self.folder.load(rates, device)
        if state.step > steps:
            raise InputError("--steps", f"at least the {state.step} steps already made", steps)
        return state

    def save(self, state: OptimizationState) -> None:
        """Metrics, state, splat and log as they are now.

        In this order: the rows of steps that the saved state has not made are left out when it goes on, so a run that
        is killed in between loses none.
        """
        self.folder.write_metrics(self.rows)
        self.save_state(state)
        gaussians = self.kept = self.made.result()
        if len(gaussians) and gaussians.check_finite() is None:
            write_ply(gaussians, self.folder.splat, recorded(self.settings, state.step))
        self.write_log()

    def save_state(self, state: OptimizationState) -> None:
        """What the run goes on from."""
        assert self.plan is not None
        metadata = {
            "fingerprint": self.identity.key,
            "identity": json.dumps(self.identity.described),
            "memory": json.dumps(asdict(self.plan)),
            "memory_mode": self.config.memory,
        }
        save_state(state, self.folder.state, metadata)

    def write_log(self) -> None:
        """run.json."""
        made = max(self.state.step - self.first_step, 1)
        self.folder.write_log(
            {
                "status": self.status,
                "steps_made": self.state.step,
                "gaussians": self.made.count - self.made.cleaned.removed,
                "removed": self.made.cleaned,
                **self.settings,
                "memory_plan": self.plan,
                "fingerprint": self.identity.key,
                "versions": versions(),
                "seconds": round(time.perf_counter() - self.started, 3),
                "seconds_per_step": {name: round(value / made, 6) for name, value in self.phases.items()},
                "peak_memory_bytes": self.peak_memory,
            }
        )

    def make_pictures(self, interrupt: Interrupt) -> None:
        """The contact sheet, and unless interrupted the film; no picture of an earlier splat stays beside this one."""
        self.folder.remove_pictures()
        from tqdm import tqdm

        kept = self.kept
        assert kept is not None  # the run came to its end, so the state was whole
        gaussians = kept if self.work is None else self.made.shown().detach()
        sheet = turntable(8, 256, elevation=ELEVATION)
        write_png(contact_sheet(list(render_views(gaussians, sheet, WHITE, self.renderer))), self.folder.views)
        if interrupt.requested:
            return

        def frames(views: int, size: int) -> Iterator[Tensor]:
            film = render_views(gaussians, turntable(views, size, elevation=ELEVATION), WHITE, self.renderer)
            for frame in tqdm(film, total=views, desc="turntable", unit="frame", leave=False):
                if interrupt.requested:
                    raise _FilmInterrupted
                yield frame

        with suppress(_FilmInterrupted):
            metadata = recorded(self.settings, self.state.step)
            write_mp4(frames(120, 512), self.folder.turntable, metadata=in_film(metadata))
            for path in write_exports(self.exports, self.folder.path, kept, metadata, frames):
                self.exported.append(path)

    def tell(self) -> int:
        """Print what was written; the exit code."""
        made = (self.folder.splat, self.folder.turntable, self.folder.views, *self.exported)
        files = [p for p in made if p.exists()]
        if self.status == "interrupted":
            kept = ", ".join(str(path) for path in [*files, self.folder.state])
            instead = " in place of --overwrite" if self.settings["options"].get("overwrite") else ""
            print(
                f"Interrupted after {self.state.step} of {self.config.steps} steps. Kept: {kept}. "
                f"Go on with the same command and --out {self.folder.path} --resume{instead}.",
                file=sys.stderr,
            )
            return 130
        gone = self.made.cleaned
        count = self.made.count - gone.removed
        removed = (
            f"; removed {gone.transparent:,} transparent ones and {gone.floaters:,} floaters" if gone.removed else ""
        )
        print(f"{count:,} Gaussians after {self.state.step} steps{removed}")
        for path in files:
            print(path)
        return 0


class _FilmInterrupted(Exception):
    """Ctrl-C while the film is made."""


def figures(report: StepReport) -> str:
    """The figures of a report that tell whether a run goes well."""
    return f"t={report.t} |g|={report.gradient_norm:.3g} clipped={100 * report.clipped:.0f}% N={report.gaussians}"
