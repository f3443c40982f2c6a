"""The objects of a list's folder, with everything that a report shows of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..batch.index import INDEX, read_index
from ..errors import InputError

MEASURES = "measures.json"
"""In an object's folder: what `evaluate` found."""


@dataclass(frozen=True)
class Row:
    """One object."""

    name: str
    folder: Path
    options: dict[str, Any]
    state: str
    error: str
    steps: int
    gaussians: int
    seconds: float
    measures: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)


def read_rows(folder: Path) -> tuple[list[Row], str]:
    """All objects of a list's folder in the list's order, and the list's name. Errors: InputError."""
    try:
        content = read_index(folder / INDEX)
        rows = [_row(folder, found) for found in content["objects"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "make one with batch"
        raise InputError("DIR", f"a folder of batch, with {INDEX}", f"{folder} ({error})", remedy) from error
    return rows, str(content.get("list", folder.name))


def _row(folder: Path, found: dict[str, Any]) -> Row:
    measures = read_measures(folder / found["name"] / MEASURES)
    return Row(
        name=str(found["name"]),
        folder=folder / found["name"],
        options=dict(found["options"]),
        state=str(found["state"]),
        error=str(found["error"]),
        steps=int(found["steps"]),
        gaussians=int(found["gaussians"]),
        seconds=float(found["seconds"]),
        measures={m["name"]: float(m["value"]) for m in measures if m.get("value") is not None},
        protocols={m["name"]: str(m["protocol"]) for m in measures},
    )


def read_measures(path: Path) -> list[dict[str, Any]]:
    """What `evaluate` wrote beside a splat; nothing where it did not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [m for m in content if isinstance(m, dict) and "name" in m and "protocol" in m]
