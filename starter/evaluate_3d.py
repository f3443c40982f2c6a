"""Text to 3D with the starter checkpoint, measured: `python -m starter.evaluate_3d --study methods --jobs 2`.

Every variant gets the same number of network evaluations per object. The measure is how near an object comes to the
world's own (`truth`); beside it a judge names kind and colour of 24 turntable views.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamer_core.errors import InputError
from dreamer_core.files import write_atomically
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import from_points, initial_shape
from dreamer_core.media import contact_sheet, write_png
from dreamer_core.optimize import OptimizationState, optimize
from dreamer_core.optimize.presets import STARTER_SIDES, STARTER_TRAJECTORY
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.rendering import render
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl

from .dataset import WORK
from .export import OUTPUT
from .judge import COLOUR_NAMES, load_judge
from .shapes import KINDS
from .studies import STARTER, STUDIES, Variant, evaluations_per_step, prompts_20, with_steps
from .truth import VIEWS, cameras, nearness
from .world import KIND_NAMES, Subject, union_distance

COUNT = STARTER.count
CLOUD_NOISE = 0.03
"""World units by which the points of the initial cloud miss the surface."""


def rough_cloud(kind: str, count: int, generator: torch.Generator) -> Gaussians:
    """Grey Gaussians near the surface of the world's object: random points moved along the slope of the distance."""

    points = 2 * torch.rand(20 * count, 3, generator=generator) - 1
    for _ in range(4):
        points = points.detach().requires_grad_(True)
        d = union_distance(KINDS[kind](points))
        (slope,) = torch.autograd.grad(d.sum(), points)
        points = points.detach() - d.detach()[:, None] * torch.nn.functional.normalize(slope, dim=-1)
    points = points[(union_distance(KINDS[kind](points)).abs() < 0.01) & (points.norm(dim=-1) < 1)][:count]
    return from_points(points + CLOUD_NOISE * torch.randn(points.shape, generator=generator))


def turn(state: OptimizationState) -> tuple[Tensor, Tensor]:
    """Turntable pictures [VIEWS, H, W, 3] on white, and their coverage [VIEWS, H, W]."""
    with torch.no_grad():
        output = render(state.gaussians, cameras(), backgrounds=torch.ones(VIEWS, 3))
    return output.colors.clamp(0, 1), output.alphas[..., 0]


def judged(state: OptimizationState, subject: Subject) -> tuple[dict[str, float], Tensor]:
    """Nearness to the true object, and shares of views named right; the pictures [VIEWS, H, W, 3]."""
    pictures, coverage = turn(state)
    kinds, colours, _ = load_judge()(pictures)
    kind = kinds.argmax(-1) == KIND_NAMES.index(subject.kind)
    colour = colours.argmax(-1) == COLOUR_NAMES.index(subject.colour)
    shares = {
        "kind": kind.float().mean().item(),
        "colour": colour.float().mean().item(),
        "both": (kind & colour).float().mean().item(),
        **asdict(nearness(pictures, coverage, subject)),
    }
    return shares, pictures


def make(
    subject: Subject, variant: Variant, teacher: DiffusersSDXL, seed: int
) -> tuple[OptimizationState, dict[str, Any]]:
    """One object and what its making cost."""
    generator = step_generator(seed, 0, "init")
    if variant.cloud:
        start = rough_cloud(subject.kind, COUNT, generator)
    else:
        start = initial_shape("sphere", COUNT, generator, size=variant.size, opacity=variant.opacity)
    config = replace(variant.config, seed=seed)
    state = OptimizationState.create(start, config.learning_rates)
    prompts = encode_prompts(teacher, PromptConfig(subject.prompt(), **{**STARTER_SIDES, **variant.prompt}))
    began, reports = time.perf_counter(), list(optimize(state, teacher, prompts, config))
    norms = torch.tensor([r.image_gradient_norm for r in reports])
    return state, {
        "steps": len(reports),
        "seconds": round(time.perf_counter() - began, 1),
        "evaluations_per_view": sum(r.network_evaluations for r in reports),
        "gradient_norm_median": norms.median().item(),
        "gradient_norm_p95_over_median": (norms.quantile(0.95) / norms.median()).item(),
        "gradient_norm_max_over_median": (norms.max() / norms.median()).item(),
        "clipped": sum(r.clipped for r in reports) / len(reports),
        "gaussians": len(state.params["means"]),
        "largest_scale": state.gaussians.scales.max().item(),
    }


def _job(folder: Path, checkpoint: Path, variant: Variant, subject: Subject, seed: int) -> dict[str, Any]:
    global _teacher
    torch.set_num_threads(1)
    if _teacher is None:
        _teacher = load_sdxl(checkpoint)
    state, report = make(subject, variant, _teacher, seed)
    shares, pictures = judged(state, subject)
    picture = folder / f"{name_of(variant, subject, seed)}.png"
    write_png(contact_sheet(pictures[:: VIEWS // 6], 6), picture)
    return {"variant": variant.name, "prompt": subject.prompt(), "seed": seed} | shares | report


_teacher: DiffusersSDXL | None = None


def settings_of(variant: Variant) -> str:
    """A hash of everything that a variant's results depend on besides weights, prompt and seed."""
    return hashlib.sha256(repr((variant, COUNT)).encode()).hexdigest()[:12]


def name_of(variant: Variant, subject: Subject, seed: int) -> str:
    """What an object's picture and its result are called."""
    return f"{variant.name} {subject.prompt()} {seed}".replace(",", "").replace(" ", "-")


def run(
    variants: Sequence[Variant],
    things: Iterable[tuple[Subject, int]],
    budget: float,
    folder: Path,
    checkpoint: Path,
    jobs: int,
) -> list[dict[str, Any]]:
    """Make and judge everything that `folder` has no result of yet, `jobs` objects at a time on one thread each.

    Each object costs about `budget` network evaluations per view. Results are kept in `folder`/results.json after each
    object. Errors: InputError where that file holds results of other weights or settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    made_from = hashlib.sha256(weights.read_bytes() if weights.exists() else b"").hexdigest()[:12]
    stretched = [
        replace(v, config=with_steps(v.config, max(1, round(budget / evaluations_per_step(v))))) for v in variants
    ]
    wanted = [(v, subject, seed) for subject, seed in things for v in stretched]
    origin = {name_of(*job): {"weights": made_from, "settings": settings_of(job[0])} for job in wanted}
    stale = [
        name
        for name, row in results.items()
        if row["weights"] != made_from or (name in origin and row.get("settings") != origin[name]["settings"])
    ]
    if stale:
        remedy = "move the file away or name another folder"
        raise InputError(
            "--out", f"results of these weights ({made_from}) and settings", f"{stale[0]} in {file}", remedy
        )
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        missing = [job for job in wanted if name_of(*job) not in results]
        names = {pool.submit(_job, folder, checkpoint, *job): name_of(*job) for job in missing}
        for future in as_completed(names):
            results[names[future]] = future.result() | origin[names[future]]
            write_atomically(file, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))
            print(f"{len(results)}: {names[future]}", flush=True)
    return [results[name_of(*job)] for job in wanted]


COLUMNS = {
    "iou": "IoU", "iou_worst": "worst view", "psnr": "PSNR", "ssim": "SSIM", "turned_iou": "IoU, best turn",
    "kind": "kind", "colour": "colour", "both": "both",
    "gradient_norm_p95_over_median": "norm p95 / median", "gradient_norm_max_over_median": "norm max / median",
    "clipped": "clipped", "gaussians": "Gaussians", "largest_scale": "largest scale", "steps": "steps",
    "evaluations_per_view": "evaluations", "seconds": "seconds",
}  # fmt: skip


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means over the objects of each variant as a Markdown table; with several seeds, the spread over their means."""
    lines = ["| variant | objects | " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * (len(COLUMNS) + 2)]
    for name in dict.fromkeys(r["variant"] for r in results):
        rows = [r for r in results if r["variant"] == name]
        cells = []
        for column in COLUMNS:
            text = f"{statistics.fmean(r[column] for r in rows):.3g}"
            seeds = {r["seed"] for r in rows}
            if column in ("both", "iou", "psnr", "ssim") and 1 < len(seeds) < len(rows):
                means = [statistics.fmean(r[column] for r in rows if r["seed"] == seed) for seed in seeds]
                text += f" ± {statistics.stdev(means):.2g}"
            cells.append(text)
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.evaluate_3d", description=__doc__)
    parser.add_argument("--study", choices=list(STUDIES), default="methods")
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--prompts", type=int, default=20, help="how many of the twenty (`ablation` has its own)")
    parser.add_argument("--seeds", type=int, default=3, help="for `ablation` and `kinds`")
    parser.add_argument("--steps", type=int, help="steps of the first variant; the others get its network evaluations")
    parser.add_argument("--out", type=Path, default=WORK / "3d")
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--jobs", type=int, default=2, help="objects at a time, one thread each")
    options = parser.parse_args(arguments)
    if options.jobs > 1:  # for the processes that will be started
        os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    base = STARTER.config if options.study == "kinds" else STARTER_TRAJECTORY
    if options.steps is not None:
        base = with_steps(base, options.steps)
    variants = STUDIES[options.study](base)
    if options.study == "kinds":
        things = [(subject, seed) for seed in range(options.seeds) for subject in prompts_20()[: options.prompts]]
    elif options.study != "ablation":
        things = [(subject, i) for i, subject in enumerate(prompts_20()[: options.prompts])]
    else:
        subjects = [Subject("chair", "green"), Subject("car", "blue"), Subject("duck", "yellow")]
        things = [(subject, seed) for seed in range(options.seeds) for subject in subjects]
    budget = base.steps * evaluations_per_step(variants[0])
    if options.variants:
        variants = [v for v in variants if v.name in options.variants]
    print(table(run(variants, things, budget, options.out / options.study, options.checkpoint, options.jobs)))


if __name__ == "__main__":
    main()
