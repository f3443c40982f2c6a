"""Whether long use costs more and more: `python -m benchmarks.endurance`, and `--graphs 30` for ComfyUI's queue.

By itself it makes 2,000 steps in one run of the core. `--graphs N` queues N graphs one after another in a live ComfyUI
(COMFYUI_PATH, ComfyUI's Python), each another seed. Both use tiny random networks and tell memory, threads, open files,
temporary files and processor seconds, and the change from the second tenth to the last.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 20
MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """A process at one time."""

    done: int
    mib: float
    threads: int
    open_files: int
    temporary: int
    """Files whose names say that they are on their way."""
    cpu_seconds: float
    """Per step or graph since the sample before."""


class Watch:
    """Samples of a process and a folder."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._process, self._folder = psutil.Process(pid), folder
        self._cpu, self._done = self._spent(), 0
        self.samples: list[Sample] = []

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def look(self, done: int) -> Sample:
        """One sample after `done` steps or graphs."""
        spent = self._spent()
        hidden = sum(1 for p in self._folder.rglob("*") if p.is_file() and (p.name[0] == "." or ".tmp" in p.name))
        sample = Sample(
            done,
            round(self._process.memory_info().rss / MIB, 1),
            self._process.num_threads(),
            self._process.num_fds(),
            hidden,
            round((spent - self._cpu) / max(done - self._done, 1), 4),
        )
        self._cpu, self._done = spent, done
        self.samples.append(sample)
        print("".join(f"{value:>12}" for value in astuple(sample)), flush=True)
        return sample


def told(samples: list[Sample]) -> str:
    """From the second tenth, when all is warm, to the last."""
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth : 2 * tenth + 1], samples[-tenth - 1 :]
    parts = []
    for field in fields(Sample)[1:]:
        first, last = (statistics.median(getattr(s, field.name) for s in part) for part in (early, late))
        parts.append(f"{field.name} {first:g} -> {last:g}")
    return ", ".join(parts)


def heading() -> None:
    print("".join(f"{field.name:>12}" for field in fields(Sample)))


def steps_in_one(count: int, base: Path) -> Iterator[int]:
    """Make them, saving every second; the number made, now and then."""
    from dreamer_core.initializers import initial_shape
    from dreamer_core.optimize import PRESETS, LearningRates, OptimizationState, run, save_state
    from dreamer_core.prompts import PromptConfig, encode_prompts
    from dreamer_core.teachers.sdxl.loading import load_sdxl
    from dreamer_core.teachers.sdxl.tiny_sdxl import save_tiny_sdxl

    teacher = load_sdxl(save_tiny_sdxl(base / "tiny"))
    prompts = encode_prompts(teacher, PromptConfig(prompt="a red mug"))
    teacher.release_text_encoders()
    small: dict[str, Any] = {"steps": count, "views": 1, "resolution": 64}
    config = replace(PRESETS["starter"].config, **small)
    start = initial_shape("sphere", 150, torch.Generator().manual_seed(0))

    class Store:
        def load(self, steps: int, rates: LearningRates, device: torch.device) -> OptimizationState | None:
            return None

        def save(self, state: OptimizationState) -> None:
            save_state(state, base / "out" / "state.safetensors")

    vars(run)["SAVE_EVERY_SECONDS"] = 1.0
    made = run.Run.begin(config, Store(), start, torch.device("cpu"))
    seen: list[int] = []
    every = max(1, count // SAMPLES)

    def on_step(report: Any) -> bool:
        seen.append(report.step + 1)
        return (report.step + 1) % every == 0  # stops: the run is gone on with below

    while not made.finished:
        made.go(teacher, prompts, "auto", on_step)
        yield made.state.step


def import_tests(name: str) -> ModuleType:
    """A module of the host tests, with ComfyUI's own modules set up as they expect them."""
    comfy = comfyui()
    if str(comfy) not in sys.path:
        sys.path[:0] = [str(ROOT / "tests" / "nodes"), str(comfy)]
        argv, sys.argv = sys.argv, ["main.py", "--cpu"]
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")  # which reads them
        sys.argv = argv
    return importlib.import_module(name)


def comfyui() -> Path:
    """ComfyUI's folder."""
    return Path(os.environ.get("COMFYUI_PATH") or sys.exit("needs COMFYUI_PATH, ComfyUI's folder")).expanduser()


def start_server(base: Path) -> Any:
    """A live ComfyUI with this pack, for `with`; see `live.Server` of the host tests."""
    return import_tests("live").Server(comfyui(), ROOT, base)


def graphs_one_after_another(count: int, base: Path) -> Iterator[tuple[int, int]]:
    """Queue them; the server's process, and how many are done."""
    with start_server(base / "server") as server:
        yield server.pid, 0
        for i in range(count):
            server.run(import_tests("test_server").graph(steps=4, seed=i))
            yield server.pid, i + 1


def main() -> None:
    """A table on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--graphs", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dreamer-xl-endurance-") as scratch:
        base = Path(scratch)
        heading()
        if args.graphs:
            turns = graphs_one_after_another(args.graphs, base)
            pid, _ = next(turns)
            watch = Watch(pid, base)
            for _, done in turns:
                watch.look(done)
        else:
            watch = Watch(os.getpid(), base)
            for done in steps_in_one(args.steps, base):
                watch.look(done)
    print(f"{told(watch.samples)}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
