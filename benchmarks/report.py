"""What all benchmarks print: a table, and where it was measured."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, str]:
    """Processor, GPU and versions, for the record."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    found = {"cpu": f"{cpu}, {os.cpu_count()} cores", "torch": torch.__version__, "python": platform.python_version()}
    for package in ("numba", "gsplat"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def single_threaded_processor_time() -> None:
    """From now on one thread computes, and `time.perf_counter` is its processor time: for busy machines without GPU."""
    if importlib.util.find_spec("numba") is not None:
        import numba

        numba.set_num_threads(1)
    torch.set_num_threads(1)  # last: numba, when it starts, gives the OpenMP runtime that both share all threads
    time.perf_counter = time.thread_time


def wait(device: torch.device) -> None:
    """Let a GPU finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """A Markdown table with the keys of the first row as columns."""
    columns = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(columns)]
    print("| " + " | ".join(name.ljust(w) for name, w in zip(columns, widths)) + " |")
    print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    for line in cells:
        print("| " + " | ".join(text.ljust(w) for text, w in zip(line, widths)) + " |")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finish(rows: Sequence[dict[str, Any]], path: Path | None) -> None:
    """Print the table and the machine, and write both as JSON where a path is given."""
    print_table(rows)
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "rows": list(rows)}, indent=2) + "\n", encoding="utf-8")
