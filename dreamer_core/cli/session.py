"""One run with its progress bar, its interrupt and its files."""

from __future__ import annotations

import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..cameras import turntable
from ..diffusion.predictor import NoisePredictor
from ..formats import write_ply
from ..media import contact_sheet, render_views, write_mp4, write_png
from ..optimize import OptimizationState, OptimizeConfig, StepReport, optimize, save_state
from ..prompts import PromptProcessor
from .run_folder import RunFolder, row, versions

WHITE = (1.0, 1.0, 1.0)
SAVE_EVERY_SECONDS = 120.0


class _Interrupt:
    """Set by the first Ctrl-C, which lets the current step finish; the second one stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def _interruptible() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


def run_session(
    state: OptimizationState,
    teacher: NoisePredictor,
    prompts: PromptProcessor,
    config: OptimizeConfig,
    renderer: str,
    folder: RunFolder,
    settings: dict[str, Any],
    identity: str,
) -> int:
    """Optimise and write all files; 0, or 130 after an interrupt. A failing run keeps what it has, too."""
    from tqdm import tqdm

    rows: list[dict[str, Any]] = list(folder.read_metrics(state.step))
    phases: dict[str, float] = defaultdict(float)
    first, started, saved = state.step, time.perf_counter(), time.perf_counter()
    status = "failed"

    def save() -> None:
        save_state(state, folder.state, {"fingerprint": identity})
        folder.write_metrics(rows)

    def log() -> None:
        made = max(state.step - first, 1)
        per_step = {name: round(value / made, 6) for name, value in phases.items()}
        folder.write_log(
            {
                "status": status,
                "steps_made": state.step,
                "gaussians": len(state.params["means"]),
                **settings,
                "fingerprint": identity,
                "versions": versions(),
                "seconds": round(time.perf_counter() - started, 3),
                "seconds_per_step": per_step,
            }
        )

    folder.path.mkdir(parents=True, exist_ok=True)
    print("Preparing the renderer ...", file=sys.stderr, flush=True)  # numba compiles it, once
    next(render_views(state.gaussians.detach(), turntable(1, 64), WHITE, renderer))
    with (
        _interruptible() as interrupt,
        tqdm(total=config.steps, initial=state.step, unit="step", dynamic_ncols=True) as bar,
    ):
        try:
            for report in optimize(state, teacher, prompts, config, renderer):
                rows.append(row(report))
                for name, seconds in report.seconds.items():
                    phases[name] += seconds
                bar.set_postfix_str(figures(report), refresh=False)
                bar.update()
                if interrupt.requested:
                    break
                if time.perf_counter() - saved > SAVE_EVERY_SECONDS:
                    save()
                    saved = time.perf_counter()
            status = "interrupted" if state.step < config.steps else "complete"
        finally:
            save()
            log()
            gaussians = state.gaussians.detach()
            if gaussians.check_finite() is None:
                write_ply(gaussians, folder.splat)
        bar.close()
        sheet = turntable(8, 256, elevation=15.0)
        write_png(contact_sheet(list(render_views(gaussians, sheet, WHITE, renderer))), folder.views)
        if status == "interrupted":
            print(
                f"Interrupted after {state.step} of {config.steps} steps. Kept: {folder.splat}, {folder.views}, "
                f"{folder.state}. Go on with the same command and --out {folder.path} --resume.",
                file=sys.stderr,
            )
            return 130
        film = render_views(gaussians, turntable(120, 512, elevation=15.0), WHITE, renderer)
        write_mp4(tqdm(film, total=120, desc="turntable", unit="frame", leave=False), folder.turntable)
        log()
    print(f"{len(gaussians):,} Gaussians after {state.step} steps")
    for path in (folder.splat, folder.turntable, folder.views):
        print(path)
    return 0


def figures(report: StepReport) -> str:
    """The figures of a report that tell whether a run goes well."""
    return f"t={report.t} |g|={report.gradient_norm:.3g} clipped={100 * report.clipped:.0f}% N={report.gaussians}"
