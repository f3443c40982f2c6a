"""What an edit of a large splat takes on a processor: `python -m benchmarks.edit_scale [--counts 100000 1000000]`.

A ball of coloured Gaussians far from the origin, edited by the starter checkpoint at 128 pixels, two views a step: all
of it, then a region that holds a tenth. Seconds are the mean of the steps after the first; memory is what the process
held at most.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import torch

from benchmarks.report import single_threaded_processor_time
from dreamer_core.cli.generate import starter_checkpoint
from dreamer_core.editing.config import edit_config
from dreamer_core.editing.work import Work
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import from_points
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.presets import STARTER_SIDES
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.teachers.sdxl.loading import load_sdxl

PLACE = torch.tensor([3000.0, -200.0, 50.0])
ALWAYS = {"edit.sizes_from": 0.0, "edit.positions_from": 0.0}
"""Every parameter has its gradient and its moments, as late in a run."""


def scene(count: int) -> Gaussians:
    """A shell of opaque Gaussians as a scan has it, 100 units in size."""
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    made = from_points(0.9 * points)
    size = torch.full_like(made.log_scales, (4.0 / count) ** 0.5).log()
    means, big = made.means * 100 + PLACE, torch.tensor(100.0).log()
    return replace(made, means=means, log_scales=size + big, logit_opacities=torch.full_like(made.logit_opacities, 2.0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edit_scale", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[4000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--region", action="store_true", help="a tenth of it alone may change")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for busy machines")
    options = parser.parse_args()
    if options.cpu_time:
        single_threaded_processor_time()
    teacher = load_sdxl(starter_checkpoint())
    target, source = (
        encode_prompts(teacher, PromptConfig(text, **STARTER_SIDES)) for text in ("a blue car", "a red car")
    )
    config = replace(edit_config(PRESETS["starter"], "edit", ALWAYS), steps=1 + options.steps)
    for count in options.counts:
        given = scene(count)
        free = (
            given.means[:, 1] > float(given.means[:, 1].kthvalue(int(0.9 * count)).values) if options.region else None
        )
        began = time.perf_counter()
        work = Work.of(given, config.edit, free, source)
        state = OptimizationState.create(work.changing, config.learning_rates)
        prepared = time.perf_counter() - began
        reports = list(optimize(state, teacher, target, config, original=work.original))[1:]
        began = time.perf_counter()
        work.result(state.gaussians.detach())
        back = time.perf_counter() - began
        seconds = sum(r.total_seconds for r in reports) / len(reports)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{count:,} Gaussians, {len(work.changing):,} change: {seconds:.2f} s a step, {held:.2f} GiB at most, "
            f"{prepared:.2f} s to place, {back:.2f} s back",
            flush=True,
        )


if __name__ == "__main__":
    main()
