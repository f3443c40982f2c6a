"""What all benchmarks print: a table, and where it was measured."""

from __future__ import annotations

import json
import os
import platform
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
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


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
