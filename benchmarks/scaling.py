"""Cost of rendering, forward and backward, against Gaussians, resolution and views: `python -m benchmarks.scaling`."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import finish, single_threaded_processor_time, wait
from dreamer_core.cameras import turntable
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState
from dreamer_core.rendering import render, resolve_backend


def measure(
    count: int, resolution: int, views: int, backend: str, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Median seconds of a render with depth, and of its backward pass."""
    scene = initial_shape("sphere", count, torch.Generator().manual_seed(0)).to(device)
    state = OptimizationState.create(scene, PRESETS["official"].config.learning_rates)
    cameras = turntable(views, resolution).to(device)
    forward, backward = [], []
    for i in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        output = render(state.gaussians, cameras, depth=True, backend=backend)
        wait(device)
        middle = time.perf_counter()
        output.colors.backward(torch.ones_like(output.colors))
        wait(device)
        if i:  # the first run compiles
            forward.append(middle - start)
            backward.append(time.perf_counter() - middle)
    return {
        "Gaussians": count,
        "resolution": resolution,
        "views": views,
        "forward ms": 1e3 * statistics.median(forward),
        "backward ms": 1e3 * statistics.median(backward),
        "ms per view": 1e3 * (statistics.median(forward) + statistics.median(backward)) / views,
    }


def main() -> None:
    """One axis at a time, around 20,000 Gaussians, 512 pixels, one view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--renderer", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for busy machines")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.cpu_time:
        single_threaded_processor_time()
    device = torch.device(args.device)
    backend = resolve_backend(args.renderer, device)
    cases = [(n, 512, 1) for n in (5_000, 20_000, 100_000, 300_000)]
    cases += [(20_000, r, 1) for r in (128, 256, 1024)]
    cases += [(20_000, 512, v) for v in (2, 4, 8)]
    rows = [{"renderer": backend, **measure(*case, backend, device, args.repeats)} for case in cases]
    finish(rows, args.json)


if __name__ == "__main__":
    main()
