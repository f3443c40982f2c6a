"""The multi-view adapter, part by part, against the true objects: `python -m starter.evaluate_multiview`.

Apart are measured the adapter's own drawings, the fit to them (and to true pictures), and distillation: with the plain
teacher, with both from the preset's ball, and with both from the fit. All objects cost the same network evaluations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamer_core.files import write_atomically
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers.drawn_views import DrawnViewsConfig, draw_views
from dreamer_core.initializers.views import ViewPictures, border_colours, gaussians_from_views, silhouettes
from dreamer_core.media import contact_sheet, write_png
from dreamer_core.optimize import OptimizationState, OptimizeConfig, optimize
from dreamer_core.optimize.presets import STARTER_SIDES, STARTER_TRAJECTORY
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.teachers.multiview.cameras import AZIMUTHS, group_cameras
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl

from .dataset import WORK
from .evaluate_3d import judged
from .export import OUTPUT
from .studies import STARTER, prompts_20, with_steps
from .train_multiview import OUTPUT as ADAPTER
from .truth import VIEWS, front_at
from .world import KIND_NAMES, RESOLUTION, Subject, render, render_layers

SHARE = (0.5, 0.2)
"""Of the steps of joint distillation that look at a group: at first and at last."""
FIT_STEPS = 300
REFINED_FROM = 250
"""By how much the timesteps of a refinement are higher at first than at last."""
WAYS = ("drawn", "fit", "fit to true pictures", "plain", "both", "both from the fit")


@dataclass(frozen=True)
class Group:
    """The six pictures that are true, and those that the adapter draws."""

    true: Tensor  # [V, H, W, 3] on grey
    coverage: Tensor  # [V, H, W]
    drawn: Tensor  # [V, H, W, 3]


def refining(config: OptimizeConfig, steps: int) -> OptimizeConfig:
    """`config` for Gaussians that are nearly right: from lower noise levels on, and with smaller steps."""
    guidance = replace(config.guidance, t_lift=REFINED_FROM, t_widening=REFINED_FROM)
    rates = STARTER_TRAJECTORY.learning_rates
    return replace(with_steps(config, steps), guidance=replace(guidance, warmup_steps=steps), learning_rates=rates)


def samples_of(config: OptimizeConfig) -> float:
    """Samples that the network sees in a run: each view of a step with its prompt and without."""
    share = sum(config.multiview_share) / 2
    return config.steps * 2 * (share * len(AZIMUTHS) + (1 - share) * config.views)


def of_equal_cost(config: OptimizeConfig, samples: float) -> OptimizeConfig:
    """`config` stretched to so many samples of the network."""
    return with_steps(config, max(1, round(config.steps * samples / samples_of(config))))


def drawn_group(teacher: DiffusersSDXL, subject: Subject, config: DrawnViewsConfig, seed: int) -> Group:
    """The adapter's drawing of a subject beside the truth."""
    cameras = group_cameras(AZIMUTHS, RESOLUTION)
    grey = torch.full((len(AZIMUTHS), 3), 0.5)
    prompts = encode_prompts(teacher, PromptConfig(subject.prompt(), **STARTER_SIDES))
    latents = draw_views(teacher, prompts, resolution=RESOLUTION, config=config, seed=seed)
    coverage = 1 - render_layers(subject.kind, cameras)[..., 6]
    return Group(render(subject, cameras, grey), coverage, teacher.decode(latents))


def drawing_error(group: Group) -> dict[str, float]:
    """Of the adapter's own pictures: PSNR in dB and IoU by their silhouettes, means over the views."""
    seen = silhouettes(group.drawn, border_colours(group.drawn)) > 0.5
    there = group.coverage > 0.5
    either, both = seen | there, seen & there
    squares = (group.drawn - group.true).square().mean(-1)
    errors = (squares * either).sum((1, 2)) / either.sum((1, 2))
    iou = both.sum((1, 2)) / either.sum((1, 2))
    return {
        "iou": iou.mean().item(),
        "iou_worst": iou.min().item(),
        "psnr": (-10 * errors.clamp_min(1e-10).log10()).mean().item(),
    }


def distilled(
    teacher: DiffusersSDXL, subject: Subject, config: OptimizeConfig, start: Gaussians, seed: int
) -> Gaussians:
    """What a run makes of its start."""
    state = OptimizationState.create(start, config.learning_rates)
    prompts = encode_prompts(teacher, PromptConfig(subject.prompt(), **STARTER_SIDES))
    for _ in optimize(state, teacher, prompts, replace(config, seed=seed)):
        pass
    return state.gaussians.detach()


def made(teacher: DiffusersSDXL, subject: Subject, way: str, group: Group, drawing: float, seed: int) -> Gaussians:
    """The object by one of the ways; `drawing` is what the group's pictures cost in samples of the network."""
    config = STARTER.config
    plain, both = replace(config, multiview_share=(0.0, 0.0)), replace(config, multiview_share=SHARE)
    budget = samples_of(plain)
    if way in ("plain", "both"):
        ball = STARTER.start(step_generator(seed, 0, "init"))
        return distilled(teacher, subject, plain if way == "plain" else of_equal_cost(both, budget), ball, seed)
    pictures = group.true if way == "fit to true pictures" else group.drawn
    fitted = gaussians_from_views(ViewPictures(pictures, AZIMUTHS), STARTER.count, steps=FIT_STEPS, seed=seed)
    if way.startswith("fit"):
        return fitted
    both = of_equal_cost(both, budget - drawing)
    return distilled(teacher, subject, refining(both, both.steps), fitted, seed)


def measured(gaussians: Gaussians, subject: Subject) -> tuple[dict[str, Any], Tensor]:
    """Nearness to the truth, what the judge says, and where the front is; and the pictures [VIEWS, H, W, 3]."""
    found, pictures = judged(OptimizationState.create(gaussians, STARTER.config.learning_rates), subject)
    front = front_at(pictures, subject)
    return {**found, "front_at": front, "second_front": float(abs(front) > 60)}, pictures


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Means over the objects of each way."""
    lines = ["| way | objects | IoU | worst view | PSNR | SSIM | second front |", "|" + " --- |" * 7]
    for way in WAYS:
        found = [row for row in rows.values() if row["way"] == way]
        if found:
            keys = [k for k in ("iou", "iou_worst", "psnr", "ssim", "second_front") if k in found[0]]
            means = [f"{sum(row[key] for row in found) / len(found):.3g}" for key in keys]
            lines.append(f"| {way} | {len(found)} | {' | '.join(means)}{' | -' * (5 - len(means))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.evaluate_multiview", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KIND_NAMES, default=KIND_NAMES)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--out", type=Path, default=WORK / "multiview")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    teacher, drawing = load_sdxl(options.checkpoint, multiview=options.adapter, keep_decoder=True), DrawnViewsConfig()
    cost = 2.0 * len(AZIMUTHS) * drawing.sampling_steps
    file = options.out / "results.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    subjects = [s for s in prompts_20()[: len(KIND_NAMES)] if s.kind in options.kinds]
    for subject, seed in [(s, seed) for seed in range(options.seeds) for s in subjects]:
        ways = [w for w in options.ways if f"{subject.prompt()}, {w}, {seed}" not in rows]
        group = drawn_group(teacher, subject, drawing, seed) if ways else None
        for way in ways:
            assert group is not None
            name, began = f"{subject.prompt()}, {way}, {seed}", time.process_time()
            if way == "drawn":
                found: dict[str, Any] = drawing_error(group)
                pictures = torch.cat([group.drawn, group.true])
            else:
                found, pictures = measured(made(teacher, subject, way, group, cost, seed), subject)
                pictures = pictures[:: VIEWS // 6]
            rows[name] = {"way": way, "prompt": subject.prompt(), "seed": seed, **found}
            rows[name]["cpu_seconds"] = round(time.process_time() - began, 1)
            print(name, {k: round(v, 3) for k, v in rows[name].items() if not isinstance(v, str)}, flush=True)
            write_png(contact_sheet(pictures, 6), options.out / f"{name.replace(', ', '-').replace(' ', '-')}.png")
            text = json.dumps(rows, indent=1) + "\n"
            write_atomically(file, lambda path: path.write_text(text))  # noqa: B023
    print(table(rows))


if __name__ == "__main__":
    main()
