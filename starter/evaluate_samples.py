"""What the teacher itself draws, against the true objects: `python -m starter.evaluate_samples`.

Pictures of single views by guided DDIM, before any Gaussian is there: what distillation averages. Only the true
object's pixels count, since the teacher chooses the background.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dreamer_core.media import contact_sheet, write_png
from dreamer_core.optimize.presets import STARTER_SIDES
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl

from .dataset import WORK
from .export import OUTPUT
from .studies import prompts_20
from .train_unet import guided_ddim
from .truth import VIEWS, cameras, true_pictures
from .world import KIND_NAMES, Subject

EVERY = 3
"""Of the turntable's views every third is drawn."""


@torch.no_grad()
def draw(teacher: DiffusersSDXL, subject: Subject, steps: int, guidance: float, seed: int) -> Tensor:
    """Pictures [V, 128, 128, 3] of the subject from all around, all from the same noise."""
    around = cameras().at(list(range(0, VIEWS, EVERY)))
    told = encode_prompts(teacher, PromptConfig(subject.prompt(), **STARTER_SIDES)).at(around).positive
    count, empty = len(around), teacher.encode_text([""])
    assert told.pooled is not None
    assert empty.pooled is not None
    context = torch.cat([told.tokens, empty.tokens.expand(count, -1, -1)])
    pooled = torch.cat([told.pooled, empty.pooled.expand(count, -1)])
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    x = noise.repeat(count, 1, 1, 1)
    return teacher.decode(guided_ddim(teacher._unet, x, context, pooled, steps, guidance))


def nearness_of(pictures: Tensor, subject: Subject) -> float:
    """Mean PSNR in dB over the views, of the pixels that the true object covers."""
    true, coverage = (x[::EVERY] for x in true_pictures(subject))
    there = coverage > 0.5
    errors = ((pictures - true).square().mean(-1) * there).sum((1, 2)) / there.sum((1, 2))
    return float((-10 * errors.log10()).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.evaluate_samples", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--kinds", type=int, default=len(KIND_NAMES), help="how many of the sixteen")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=WORK / "drawn.png", help="the pictures of seed 0 above the truth")
    options = parser.parse_args(arguments)
    teacher = load_sdxl(options.checkpoint, keep_decoder=True)
    means, shown = [], []
    for subject in prompts_20()[: options.kinds]:
        found = [draw(teacher, subject, options.steps, options.guidance, seed) for seed in range(options.seeds)]
        means.append(statistics.fmean(nearness_of(pictures, subject) for pictures in found))
        shown += [found[0], true_pictures(subject)[0][::EVERY]]
        print(f"{subject.prompt():28s} {means[-1]:.1f} dB", flush=True)
    print(f"{'mean':28s} {statistics.fmean(means):.1f} dB")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_png(contact_sheet(torch.cat(shown), VIEWS // EVERY), options.out)


if __name__ == "__main__":
    main()
