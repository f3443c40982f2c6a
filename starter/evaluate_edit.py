"""Restyling and editing with the starter checkpoint, measured: `python -m starter.evaluate_edit`.

Gaussians are fitted to true pictures of the world's objects, changed, and compared with what they were, and with the
true object of the new words. Beside each stands plain Optimize with the same prompt, steps and teacher.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamer_core.cameras import Cameras
from dreamer_core.editing.config import EditConfig, Task, edit_config
from dreamer_core.editing.regions import Box, Region
from dreamer_core.editing.work import Work
from dreamer_core.files import write_atomically
from dreamer_core.formats import load_gaussians, write_ply
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import initial_shape
from dreamer_core.media import contact_sheet, write_png
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.presets import STARTER_SIDES, STARTER_TRAJECTORY
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.prompts import PromptConfig, ViewPrompts, encode_prompts
from dreamer_core.rendering import render
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl

from .dataset import WORK
from .export import OUTPUT
from .judge import COLOUR_NAMES, load_judge
from .train_lora import FOLDER as LORAS
from .truth import VIEWS, cameras, nearness
from .world import (
    COLOURS,
    GOLD,
    PATTERNS,
    SECOND,
    Subject,
    colourise,
    random_backgrounds,
    render_layers,
    training_cameras,
)  # fmt: skip

FIT_STEPS, BATCH, POOL = 300, 4, 48
"""Steps, views per step, and different views of a fit."""
COUNT = 4000


@cache
def _pool(kind: str) -> tuple[Cameras, Tensor]:
    """Training cameras, and the layers [POOL, H, W, 7] of what they see; tracing takes longer than fitting."""
    views = training_cameras(POOL, torch.Generator().manual_seed(0))
    return views, render_layers(kind, views)


def fitted(subject: Subject) -> Gaussians:
    """Gaussians fitted to pictures of the true object, as `ceilings` does it."""
    rates, generator = STARTER_TRAJECTORY.learning_rates, torch.Generator().manual_seed(0)
    state = OptimizationState.create(initial_shape("sphere", COUNT, step_generator(0, 0, "init")), rates)
    views, layers = _pool(subject.kind)
    first, second = (torch.tensor(table[subject.colour]).expand(BATCH, 3) for table in (COLOURS, SECOND))
    pattern = torch.full((BATCH,), PATTERNS.index(subject.pattern))
    for _ in range(FIT_STEPS):
        chosen = torch.randperm(POOL, generator=generator)[:BATCH]
        backgrounds = random_backgrounds(BATCH, generator)
        true = colourise(layers[chosen], pattern, first, second, backgrounds)
        pictures = render(state.gaussians, views.at(chosen.tolist()), backgrounds=backgrounds).colors
        (100 * (pictures - true).abs().mean()).backward()
        state.descend(rates, FIT_STEPS)
        state.step += 1
    return state.gaussians.detach()


def incoming(subject: Subject, folder: Path) -> Gaussians:
    """The fitted object; kept in `folder`."""
    path = folder / f"{subject.prompt().replace(' ', '-')}.ply"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_ply(fitted(subject), path)
    return load_gaussians(path)


def seen(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
    """Turntable pictures [VIEWS, H, W, 3] on white, and their coverage [VIEWS, H, W]."""
    with torch.no_grad():
        output = render(gaussians, cameras(), backgrounds=torch.ones(VIEWS, 3))
    return output.colors.clamp(0, 1), output.alphas[..., 0]


def words(teacher: DiffusersSDXL, text: str) -> ViewPrompts:
    return encode_prompts(teacher, PromptConfig(text, **STARTER_SIDES))


@dataclass(frozen=True)
class Case:
    """A splat, what to make of it, and how."""

    name: str
    subject: Subject
    prompt: str
    truth: Subject | None
    """What it should become, where the world knows it."""
    task: Task = "edit"
    given: Mapping[str, Any] = field(default_factory=dict)
    region: Region | None = None
    lora: str | None = None
    spoil: Callable[[Gaussians], Gaussians] | None = None
    """What is done to the fitted splat before."""


def spoiled(gaussians: Gaussians) -> Gaussians:
    """Blurred and noised: Gaussians half as large again, moved and recoloured at random."""
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    return replace(
        gaussians,
        means=gaussians.means + 0.02 * noise(gaussians.means),
        log_scales=gaussians.log_scales + 0.4,
        sh0=gaussians.sh0 + 0.8 * noise(gaussians.sh0),
    )


def change(case: Case, start: Gaussians, teacher: DiffusersSDXL, steps: int, seed: int) -> tuple[Gaussians, int]:
    """The changed splat, and network evaluations per view."""
    config: EditConfig = edit_config(PRESETS["starter"], case.task, {"seed": seed, **case.given})
    config = replace(config, steps=steps, schedule_steps=steps)
    source = words(teacher, case.subject.prompt()) if case.task == "edit" else None
    free = None if case.region is None else case.region.mask(start)
    work = Work.of(start, config.edit, free, source)
    state = OptimizationState.create(work.changing, config.learning_rates)
    reports = list(optimize(state, teacher, words(teacher, case.prompt), config, original=work.original))
    return work.result(state.gaussians.detach()), sum(r.network_evaluations for r in reports)


def plain(case: Case, start: Gaussians, teacher: DiffusersSDXL, steps: int, seed: int) -> tuple[Gaussians, int]:
    """What plain Optimize makes from the same splat by the same method and steps, and evaluations per view."""
    preset = PRESETS["starter"]
    config = replace(preset.change or preset.config, steps=steps, schedule_steps=steps, seed=seed)
    state = OptimizationState.create(start, config.learning_rates)
    reports = list(optimize(state, teacher, words(teacher, case.prompt), config))
    return state.gaussians.detach(), sum(r.network_evaluations for r in reports)


def named(colours: Tensor) -> list[str]:
    """Which of the world's colours, or gold, mean colours [N, 3] are nearest to, by direction."""
    table = {**COLOURS, "gold": GOLD[0]}
    directions = torch.nn.functional.normalize(torch.tensor(list(table.values())), dim=-1)
    similar = torch.nn.functional.normalize(colours, dim=-1) @ directions.T
    return [list(table)[i] for i in similar.argmax(-1).tolist()]


def measured(case: Case, before: Gaussians, after: Gaussians) -> dict[str, float]:
    """Silhouettes kept, the truth approached, colours named, all else untouched."""
    (old, old_coverage), (pictures, coverage) = seen(before), seen(after)
    was, now = old_coverage > 0.5, coverage > 0.5
    found = {"iou": ((was & now).sum((1, 2)) / (was | now).sum((1, 2))).mean().item()}
    if case.truth is not None:
        found["psnr_before"] = nearness(old, old_coverage, case.truth).psnr
        found["psnr"] = nearness(pictures, coverage, case.truth).psnr
        said = load_judge()(pictures)
        right = said.colours.argmax(-1) == COLOUR_NAMES.index(case.truth.colour)
        right &= said.patterns.argmax(-1) == PATTERNS.index(case.truth.pattern)
        found["judged"] = right.float().mean().item()
    if case.lora is not None:
        solid = (coverage > 0.9)[..., None]
        means = (pictures * solid).sum((1, 2)) / solid.sum((1, 2)).clamp_min(1)
        found["gold"] = named(means).count("gold") / VIEWS
    if case.region is not None:
        free = case.region.mask(before)
        pairs = zip(before.tensors(), after.tensors(), strict=True)
        found["outside_equal"] = float(all(torch.equal(a[~free], b[~free]) for (_, a), (_, b) in pairs))
        with torch.no_grad():
            shown = sum(render(part, cameras()).alphas[..., 0] for part in (before[free], after[free]))
        found["largest_change_outside"] = ((old - pictures).abs().amax(-1) * (shown == 0)).max().item()
        weights = after.opacities[free, None]
        mean = (after.rgb[free].clamp(0, 1) * weights).sum(0) / weights.sum()
        found["region_blue"] = float(named(mean[None]) == ["blue"])
    return found


MUG, CAR = Subject("mug", "red"), Subject("car", "red")
HANDLE = Region((Box((0.66, 0.0, 0.0), (0.42, 0.9, 0.4)),))
ALL_AT_ONCE = {"edit.sizes_from": 0.0, "edit.positions_from": 0.0, "edit.position_rate": 1.0}
"""No order, and positions as fast as colours: what a pattern or a blur needs."""
REFINE = {
    "edit.strength": 0.3, "edit.colours": 0.02, "edit.patches": 64, "edit.silhouette": 0.02, "edit.depth": 0.0,
    "guidance.method": "sds", "guidance.cfg": 4.0, "guidance.cfg_fade": 0.83, **ALL_AT_ONCE,
}  # fmt: skip
PATTERN = {"edit.strength": 0.95, **ALL_AT_ONCE}
TSM_PATTERN = {**PATTERN, "guidance.method": "tsm"}
CASES = (
    Case("gold", MUG, "a red mug", None, "restyle", lora="gold.safetensors"),
    Case("handle", MUG, "a blue mug", None, given={"edit.change": "colours"}, region=HANDLE),
    Case("blue", CAR, "a blue car", Subject("car", "blue")),
    Case("blue, TSM", CAR, "a blue car", Subject("car", "blue"), given={"guidance.method": "tsm"}),
    Case("striped", CAR, "a red striped car", Subject("car", "red", "striped"), given=PATTERN),
    Case("striped, TSM", CAR, "a red striped car", Subject("car", "red", "striped"), given=TSM_PATTERN),
    Case("refine", MUG, "a red mug", MUG, "restyle", REFINE, spoil=spoiled),
    Case("refine, unblurred", MUG, "a red mug", MUG, "restyle", REFINE),
    Case("refine, car", CAR, "a red car", CAR, "restyle", REFINE, spoil=spoiled),
    Case("refine, unblurred car", CAR, "a red car", CAR, "restyle", REFINE),
)


def side_by_side(names: Sequence[str], folder: Path, to: Path) -> None:
    """A row for each case: what came in, what became of it, and what plain Optimize made of it where that was run."""
    from PIL import Image

    pictures = [Image.open(folder / f"{file_name(name)}.png") for name in names]
    width, height = pictures[0].width, pictures[0].height // 2
    sheet = Image.new("RGB", (3 * width, height * len(names)), "white")
    for row, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        sheet.paste(picture.crop((0, 0, width, height)), (0, row * height))
        sheet.paste(picture.crop((0, height, width, 2 * height)), (width, row * height))
        other = folder / f"{file_name(plainly(name))}.png"
        if other.exists():
            sheet.paste(Image.open(other).crop((0, height, width, 2 * height)), (2 * width, row * height))
    write_atomically(to, lambda path: sheet.save(path, format="JPEG", quality=90))


def plainly(name: str) -> str:
    return f"{name}, plain"


def file_name(name: str) -> str:
    return name.replace(", ", "-")


SHOWN = ("gold", "handle", "blue", "striped", "refine")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.evaluate_edit", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="plain Optimize in place of restyle and edit")
    parser.add_argument("--out", type=Path, default=WORK / "edit")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="only draw what is in --out side by side")
    options = parser.parse_args(arguments)
    if options.picture:
        side_by_side(SHOWN, options.out, options.picture)
        return
    torch.set_num_threads(1)
    file = options.out / "results.json"
    for case in CASES:
        if options.cases and case.name not in options.cases:
            continue
        start = incoming(case.subject, options.out)
        start = start if case.spoil is None else case.spoil(start)
        teacher = load_sdxl(OUTPUT, loras=[(LORAS / case.lora, 1.0)] if case.lora else [])
        began, busy = time.perf_counter(), time.process_time()
        if options.plain:
            after, evaluations = plain(case, start, teacher, options.steps, options.seed)
        else:
            after, evaluations = change(case, start, teacher, options.steps, options.seed)
        row = {"steps": options.steps, "evaluations": evaluations, **measured(case, start, after)}
        row |= {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - busy, 1)}
        name = plainly(case.name) if options.plain else case.name
        print(name, {key: round(value, 3) for key, value in row.items()}, flush=True)
        found = {**(json.loads(file.read_text()) if file.exists() else {}), name: row}
        text = json.dumps(found, indent=1) + "\n"
        write_atomically(file, lambda path: path.write_text(text))  # noqa: B023
        sides = torch.cat([seen(g)[0][:: VIEWS // 4] for g in (start, after)])
        write_png(contact_sheet(sides, 4), options.out / f"{file_name(name)}.png")


if __name__ == "__main__":
    main()
