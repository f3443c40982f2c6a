"""A step of the starter on one process and on several that share its views: `python -m benchmarks.replicas`.

Every process computes on one thread. Processor time is the mean of a step: of the process that leads, and of the
busiest replica. On a machine with other work the clock says little; where every process has a core of its own, a step
takes what the leader needs, as long as no replica needs more for its share than the leader does for the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.report import finish
from benchmarks.step import small_sdxl
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.apart import views_apart
from dreamer_core.optimize.replicas import replicated
from dreamer_core.teachers.sdxl.predictor import DiffusersSDXL

CPU = torch.device("cpu")


def loaded(folder: str | None, device: str) -> DiffusersSDXL:
    """The teacher, for another process."""
    return small_sdxl(folder, torch.device(device))[0]


def measure(folder: str | None, processes: int, views: int, steps: int, warmup: int) -> dict[str, Any]:
    """Seconds per step: the median and the least on the clock, means of processor time; after `warmup` >= 1 steps."""
    preset = PRESETS["starter"]
    config = replace(preset.config, views=views, steps=steps + warmup)
    teacher, prompts = small_sdxl(folder, CPU)
    state = OptimizationState.create(preset.start(torch.Generator().manual_seed(0)), config.learning_rates)
    clock: list[float] = []
    with replicated(teacher, partial(loaded, folder), ["cpu"] * (processes - 1)):
        others = psutil.Process().children()
        before, own, theirs = 0.0, 0.0, [0.0]
        with views_apart(teacher, views, config.resolution, CPU) as shared:
            for report in optimize(state, shared, prompts, config):
                now = time.perf_counter()
                if report.step >= warmup:
                    clock.append(now - before)
                if report.step == warmup - 1:
                    own, theirs = time.process_time(), [_seconds(one) for one in others]
                before = now
        leader = time.process_time() - own
        busiest = max((_seconds(one) - then for one, then in zip(others, theirs)), default=0.0)
    return {
        "processes": processes,
        "views": views,
        "s/step": statistics.median(clock),
        "least": min(clock),
        "leader's processor s/step": leader / steps,
        "a replica's": busiest / steps,
    }


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """One process, then all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--checkpoint", help="default: the starter")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    numbers = (args.views, args.steps, args.warmup)
    finish([measure(args.checkpoint, n, *numbers) for n in (1, args.processes)], args.json)


if __name__ == "__main__":
    main()
