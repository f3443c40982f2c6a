"""`--best-of N`: short runs of several seeds, and the one that the teacher likes best is finished."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..batch.index import write_text
from ..errors import InputError
from ..evaluation.best_of import best_trial, judge_trial, trial_length
from ..evaluation.measure import Measure
from ..optimize import PRESETS, OptimizationState, OptimizeConfig, optimize
from ..optimize.apart import views_apart
from ..prompts import PromptConfig, ViewPrompts
from ..teachers.sdxl.predictor import DiffusersSDXL
from . import generate
from .beginning import Beginning, from_options
from .devices import shared_views
from .run_folder import RunFolder
from .session import row
from .teachers import Teachers


@dataclass(frozen=True)
class Trial:
    """A short run."""

    seed: int
    state: OptimizationState
    rows: list[dict[str, Any]]
    """Of metrics.csv."""
    measures: list[Measure]


def make_best(args: argparse.Namespace, config: OptimizeConfig, prompt: PromptConfig, place: generate.Place) -> int:
    """Try, choose, and finish the best; a resumed run goes on with the seed that was chosen."""
    record = place.folder.trials
    if args.resume:
        seed = _recorded(record)
        return generate.make(args, replace(config, seed=seed), prompt, place, _begin(args, seed))
    place.folder.check(resume=False, overwrite=args.overwrite)
    generate.check_paths(args)
    if not place.teachers.keep:  # loaded once, for the trials and for the rest
        place = replace(place, teachers=Teachers(keep=True))
    teacher = place.teachers.get(args, place.device)
    fitted, _ = generate.fit_to(args, config, teacher, say=False)
    (prompts,) = place.teachers.encode(teacher, prompt)
    plan = generate.prepare(args, teacher, fitted, place.device, devices=1 + len(place.further))
    fitted = replace(fitted, recompute_encoder=plan.recompute_encoder or fitted.recompute_encoder)
    seeds = range(config.seed, config.seed + args.best_of)
    trials = []
    with shared_views(args, teacher, plan, place.further):
        for seed in seeds:
            trial = _trial(args, replace(fitted, seed=seed), teacher, prompts, place)
            if trial is None:
                return 130
            trials.append(trial)
    best = trials[best_trial([trial.measures for trial in trials])]
    _tell(trials, best)
    _write(record, trials, best)
    _keep_drawing(place.folder, trials, best)
    place = replace(place, checked=True)
    found = _begin(args, best.seed)

    def begin(device: torch.device) -> Beginning:
        return replace(found(device), made=(best.state, best.rows))

    return generate.make(args, replace(config, seed=best.seed), prompt, place, begin)


def _keep_drawing(folder: RunFolder, trials: list[Trial], best: Trial) -> None:
    for trial in trials:
        drawn = folder.drawn_by(trial.seed)
        if trial is best and drawn.is_file():
            drawn.replace(folder.drawn)
        drawn.unlink(missing_ok=True)


def _begin(args: argparse.Namespace, seed: int) -> Callable[[torch.device], Beginning]:
    return from_options(args, seed, PRESETS[generate.preset_name(args)])


def _trial(
    args: argparse.Namespace,
    config: OptimizeConfig,
    teacher: DiffusersSDXL,
    prompts: ViewPrompts,
    place: generate.Place,
) -> Trial | None:
    """The first steps of a run, as the run itself would make them; None where it is to stop."""
    from tqdm import tqdm

    steps = trial_length(config.steps, args.trial_steps)
    start = _begin(args, config.seed)(place.device).start(
        teacher, prompts, config, place.renderer, place.folder.drawn_by(config.seed)
    )
    assert start is not None  # only a resumed run has none
    state, rows = OptimizationState.create(start.to(place.device), config.learning_rates), []
    with views_apart(teacher, config.views, config.resolution, place.device) as apart:
        reports = optimize(state, apart, prompts, replace(config, steps=steps), place.renderer)
        for report in tqdm(reports, total=steps, desc=f"trial of seed {config.seed}", unit="step", leave=False):
            rows.append(row(report))
            if place.interrupt is not None and place.interrupt.requested:
                return None
    gaussians = state.gaussians.detach()
    return Trial(config.seed, state, rows, judge_trial(teacher, prompts, gaussians, config.resolution, place.renderer))


def _tell(trials: list[Trial], best: Trial) -> None:
    for trial in trials:
        values = ", ".join(f"{m.name} {m.value:.3f}" for m in trial.measures)
        chosen = "  <- finished" if trial is best else ""
        print(f"seed {trial.seed}: {values}{chosen}", file=sys.stderr, flush=True)


def _write(path: Path, trials: list[Trial], best: Trial) -> None:
    found = [{"seed": t.seed, "steps": len(t.rows), **{m.name: m.value for m in t.measures}} for t in trials]
    content = {"seed": best.seed, "protocol": [m.protocol for m in best.measures], "trials": found}
    write_text(path, json.dumps(content, indent=1) + "\n")


def _recorded(path: Path) -> int:
    """The seed that was chosen. Errors: InputError."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "--resume", f"a run of --best-of, with {path.name}", f"none that can be read ({error})"
        ) from error
