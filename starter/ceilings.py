"""What the measure of `truth` can be at best: `python -m starter.ceilings`.

As many Gaussians as a preset has, fitted to true pictures from the training cameras: once by the pictures' own
difference, once by the difference of their latents, which is all that a teacher can say about pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from dreamer_core.files import write_atomically
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState
from dreamer_core.optimize.presets import STARTER_TRAJECTORY
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.rendering import render
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl

from .dataset import WORK
from .evaluate_3d import turn
from .export import OUTPUT
from .studies import prompts_20
from .truth import nearness
from .world import KIND_NAMES, Subject, random_backgrounds, training_cameras
from .world import render as render_truth

Through = Literal["pictures", "latents"]
BATCH = 4
"""Views per step."""


def fit(
    subject: Subject, through: Through, teacher: DiffusersSDXL, steps: int, count: int, seed: int = 0
) -> OptimizationState:
    """Gaussians fitted to the true object by the learning rates of `STARTER_TRAJECTORY`."""
    rates = STARTER_TRAJECTORY.learning_rates
    state = OptimizationState.create(initial_shape("sphere", count, step_generator(seed, 0, "init")), rates)
    generator = torch.Generator().manual_seed(seed)

    def difference(pictures: Tensor, true: Tensor) -> Tensor:
        if through == "pictures":
            return 100 * (pictures - true).abs().mean()
        return 10 * (teacher.encode(pictures) - teacher.encode(true).detach()).square().mean()

    for _ in range(steps):
        cameras, backgrounds = training_cameras(BATCH, generator), random_backgrounds(BATCH, generator)
        pictures = render(state.gaussians, cameras, backgrounds=backgrounds).colors
        difference(pictures, render_truth(subject, cameras, backgrounds)).backward()
        state.descend(rates, steps)
        state.step += 1
    return state


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.ceilings", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KIND_NAMES, default=KIND_NAMES)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--count", type=int, default=PRESETS["starter"].count)
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--out", type=Path, default=WORK / "ceilings.json")
    options = parser.parse_args(arguments)
    teacher, found = load_sdxl(options.checkpoint), {}
    ways: tuple[Through, ...] = ("pictures", "latents")
    jobs = [(s, way) for s in prompts_20()[: len(KIND_NAMES)] if s.kind in options.kinds for way in ways]
    for subject, way in tqdm(jobs, desc="ceilings"):
        state = fit(subject, way, teacher, options.steps, options.count)
        found[f"{subject.prompt()}, {way}"] = asdict(nearness(*turn(state), subject))
        write_atomically(options.out, lambda path: path.write_text(json.dumps(found, indent=1) + "\n"))
    for way in ways:
        rows = [row for name, row in found.items() if name.endswith(way)]
        print(way, {key: round(sum(row[key] for row in rows) / len(rows), 3) for key in rows[0]})


if __name__ == "__main__":
    main()
