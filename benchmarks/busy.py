"""A step of the starter on a quiet machine and beside other work: `python -m benchmarks.busy`.

`apart` is how runs are made (`dreamer_core.optimize.apart`); `together` lets threads share all layers. Beside so
many busy processes a fair share of C cores is (C + busy) / C times the quiet step; the column "fair" says how many of
those a step takes. A machine with other work of its own falsifies both; the load that is printed tells.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import finish
from benchmarks.step import small_sdxl
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.apart import views_apart

WAYS = ("apart", "together")
SPIN = "while True: pass"
CPU = torch.device("cpu")


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that compute without an end."""
    started = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(way: str, steps: int, warmup: int) -> dict[str, float]:
    """Medians of a step in this process: seconds on the clock, and seconds of processor time."""
    preset = PRESETS["starter"]
    config = replace(preset.config, steps=steps + warmup)
    teacher, prompts = small_sdxl(None, CPU)
    start = initial_shape("sphere", preset.count, torch.Generator().manual_seed(0))
    state = OptimizationState.create(start, config.learning_rates)
    clock, processor = [], []
    apart = views_apart(teacher, config.views, config.resolution, CPU) if way == "apart" else nullcontext(teacher)
    with apart as used:
        before = time.perf_counter(), time.process_time()
        for report in optimize(state, used, prompts, config):
            now = time.perf_counter(), time.process_time()
            if report.step >= warmup:
                clock.append(now[0] - before[0])
                processor.append(now[1] - before[1])
            before = now
    return {"s/step": statistics.median(clock), "processor s/step": statistics.median(processor)}


def main() -> None:
    """Every way, quiet and busy, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=3, help="processes beside it")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, action="append", help="default: both")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    ways = args.way or list(WAYS)
    if args.child:
        print(json.dumps(measure(ways[0], args.steps, args.warmup)))
        return
    cores = os.cpu_count() or 1
    rows: list[dict[str, Any]] = []
    for way in ways:
        quiet = 0.0
        for busy in (0, args.busy):
            options = [f"--steps={args.steps}", f"--warmup={args.warmup}", f"--way={way}", "--child"]
            with busy_processes(busy):
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.busy", *options], stdout=subprocess.PIPE, text=True, check=True
                )
            found = json.loads(done.stdout.strip().splitlines()[-1])
            quiet = quiet or found["s/step"]
            fair = found["s/step"] / (quiet * (cores + busy) / cores)
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            rows.append({"way": way, "busy beside it": busy, **found, "fair": fair, "load": load})
    finish(rows, args.json)


if __name__ == "__main__":
    main()
