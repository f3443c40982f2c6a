"""Text to 3D with the starter checkpoint, judged: `python -m starter.evaluate_3d --out starter/work/3d`.

Every method gets the same number of network evaluations per object; the judge looks at 24 turntable views.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dreamer_core.cameras import turntable
from dreamer_core.diffusion.sdxl_diffusers import DiffusersSDXL, load_sdxl
from dreamer_core.initializers.shapes import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, OptimizeConfig, optimize
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.rendering import render

from .dataset import WORK
from .export import OUTPUT
from .judge import COLOUR_NAMES, load_judge
from .world import COLOURS, KIND_NAMES, Subject, contact_sheet

COUNT = 4000
VIEWS = 24
ELEVATION = 15.0


@dataclass(frozen=True)
class Variant:
    """One column of the table."""

    name: str
    config: OptimizeConfig


def prompts_20() -> list[Subject]:
    """Every kind once and four a second time, colours and patterns in turns; the first is "a red mug"."""
    kinds = [*KIND_NAMES, "mug", "chair", "car", "duck"]
    colours = list(COLOURS)
    # Plain things twice as often as patterned ones.
    patterns = ("plain", "striped", "plain", "dotted")
    return [Subject(kind, colours[(5 * i) % 8], patterns[i % 4]) for i, kind in enumerate(kinds)]


def variants(base: OptimizeConfig) -> list[Variant]:
    """TSM, ISM and SDS, and TSM without clipping."""
    guidance = base.guidance
    return [
        Variant("tsm", replace(base, guidance=replace(guidance, method="tsm"))),
        Variant("ism", replace(base, guidance=replace(guidance, method="ism"))),
        Variant("sds", replace(base, guidance=replace(guidance, method="sds", cfg=25.0))),
        Variant("tsm-noclip", replace(base, clip=replace(base.clip, mode="off"))),
    ]


def turn(state: OptimizationState, views: int = VIEWS, resolution: int = 128) -> Tensor:
    """Turntable pictures [views, H, W, 3] on white."""
    cameras = turntable(views, resolution, elevation=ELEVATION, radius=3.6, fov=0.61)
    with torch.no_grad():
        return render(state.gaussians, cameras, backgrounds=torch.ones(views, 3)).colors.clamp(0, 1)


def make(
    subject: Subject, teacher: DiffusersSDXL, config: OptimizeConfig, budget: int | None
) -> tuple[OptimizationState, dict[str, Any]]:
    """One object. With a `budget` it ends after that many network evaluations per view, else after `config.steps`."""
    start = initial_shape("sphere", COUNT, step_generator(config.seed, 0, "init"))
    state = OptimizationState.create(start, config.learning_rates)
    prompts = encode_prompts(teacher, PromptConfig(subject.prompt()))
    began, evaluations, norms, clipped = time.perf_counter(), 0, [], []
    for report in optimize(state, teacher, prompts, config):
        evaluations += report.network_evaluations
        norms.append(report.image_gradient_norm)
        clipped.append(report.clipped)
        if budget is not None and evaluations >= budget:
            break
    spread = torch.tensor(norms)
    return state, {
        "steps": len(norms),
        "seconds": round(time.perf_counter() - began, 1),
        "evaluations_per_view": evaluations,
        "gradient_norm_median": spread.median().item(),
        "gradient_norm_p95_over_median": (spread.quantile(0.95) / spread.median()).item(),
        "clipped": sum(clipped) / len(clipped),
        "gaussians": len(state.params["means"]),
    }


def steps_for(method: str, budget: int, evaluations: dict[str, float]) -> int:
    """Steps that use up `budget` evaluations per view."""
    return max(1, round(budget / evaluations[method]))


def measured_evaluations(teacher: DiffusersSDXL, base: OptimizeConfig, steps: int = 12) -> dict[str, float]:
    """Mean network evaluations per view and step of each method, over timesteps of the whole schedule."""
    from dreamer_core.optimize.loop import sample_timesteps

    per_step = {"sds": 2.0}
    times = [
        sample_timesteps(base.guidance, step, step_generator(base.seed, step, "timestep"))
        for step in range(0, base.steps, max(1, base.steps // (20 * steps)))
    ]
    # The DDIM path from 0 to s in strides, its last evaluation at s, then t twice (TSM: and mu).
    path = sum(-(-t.s // base.guidance.stride) + 1 for t in times) / len(times)
    return per_step | {"ism": path + 2, "tsm": path + 3}


def run(
    subjects: Iterable[Subject], methods: Sequence[str], out: Path, base: OptimizeConfig, checkpoint: Path
) -> dict[str, Any]:
    """Make and judge everything; results are written after each object, and kept ones are not made again."""
    teacher, judge = load_sdxl(checkpoint), load_judge()
    out.mkdir(parents=True, exist_ok=True)
    results_file = out / "results.json"
    results: dict[str, Any] = json.loads(results_file.read_text()) if results_file.exists() else {}
    cost = measured_evaluations(teacher, base)
    budget = round(base.steps * cost["tsm"])
    for variant in (v for v in variants(base) if v.name in methods):
        for i, subject in enumerate(subjects):
            key = f"{variant.name}/{i:02d} {subject.prompt()}"
            if key in results:
                continue
            # The schedules stretch with the number of steps, so that each method runs through all of its own.
            steps = steps_for(variant.config.guidance.method, budget, cost)
            guidance = replace(
                variant.config.guidance,
                warmup_steps=round(variant.config.guidance.warmup_steps * steps / base.steps),
            )
            config = replace(variant.config, steps=steps, schedule_steps=steps, seed=i, guidance=guidance)
            state, report = make(subject, teacher, config, None)
            views = turn(state)
            kinds, colours = judge(views)
            kind = kinds.argmax(-1) == KIND_NAMES.index(subject.kind)
            colour = colours.argmax(-1) == COLOUR_NAMES.index(subject.colour)
            results[key] = report | {
                "kind": kind.float().mean().item(),
                "colour": colour.float().mean().item(),
                "both": (kind & colour).float().mean().item(),
            }
            sheet = contact_sheet(views[:: VIEWS // 6], 6)
            Image.fromarray(sheet.numpy()).save(out / f"{variant.name}_{i:02d}.png")
            results_file.write_text(json.dumps(results, indent=2) + "\n")
            print(key, {k: round(v, 3) for k, v in results[key].items()}, flush=True)
    return results


def table(results: dict[str, Any]) -> str:
    """Means per method as a Markdown table."""
    names = ("kind", "colour", "both", "seconds", "steps", "evaluations_per_view", "gradient_norm_p95_over_median",
             "clipped", "gaussians")  # fmt: skip
    lines = ["| method | objects | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 2)]
    for method in dict.fromkeys(key.split("/")[0] for key in results):
        rows = [value for key, value in results.items() if key.startswith(f"{method}/")]
        means = [sum(r[n] for r in rows) / len(rows) for n in names]
        lines.append(f"| {method} | {len(rows)} | " + " | ".join(f"{m:.3g}" for m in means) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.evaluate_3d", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["tsm", "ism", "sds", "tsm-noclip"])
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--steps", type=int, help="TSM's steps; the others get the same network evaluations")
    parser.add_argument("--out", type=Path, default=WORK / "3d")
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    base = PRESETS["starter"]
    if options.steps is not None:
        warmup = round(base.guidance.warmup_steps * options.steps / base.steps)
        guidance = replace(base.guidance, warmup_steps=warmup)
        base = replace(base, steps=options.steps, schedule_steps=options.steps, guidance=guidance)
    subjects = prompts_20()[: options.prompts]
    print(table(run(subjects, options.methods, options.out, base, options.checkpoint)))


if __name__ == "__main__":
    main()
