"""The page: a template, its style and script, and the data of a list, in one file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import write_atomically
from .rows import Row
from .sprites import FRAMES, SIZE, sprite

HERE = Path(__file__).parent
FILM = "turntable.mp4"


def write_report(rows: Sequence[Row], title: str, path: Path, on_row: Callable[[], object] = lambda: None) -> None:
    """Write the page; it asks for nothing from anywhere, so it can be sent and kept."""
    objects = []
    for row in rows:
        objects.append(_object(row))
        on_row()
    data = {
        "title": title,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
        "frames": FRAMES,
        "size": SIZE,
        "objects": objects,
        "protocols": {name: text for row in rows for name, text in row.protocols.items()},
        "varying": varying(rows),
    }
    parts = {name: (HERE / name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js")}
    # "</" would end the script; as an escape it means the same to JSON
    page = parts["report.html"].replace("/* style */", parts["report.css"]).replace("/* script */", parts["report.js"])
    page = page.replace("/* data */", json.dumps(data, ensure_ascii=False).replace("</", "<\\/"))
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _object(row: Row) -> dict[str, Any]:
    options = {name: str(value) for name, value in row.options.items()}
    return {
        "name": row.name, "state": row.state, "error": row.error, "options": options, "measures": row.measures,
        "numbers": {"steps": row.steps, "Gaussians": row.gaussians, "seconds": round(row.seconds, 1)},
        "sprite": sprite(row.folder / FILM),
    }  # fmt: skip


def varying(rows: Sequence[Row]) -> list[str]:
    """Options that differ between the objects, in the order in which they first come."""
    names = list(dict.fromkeys(name for row in rows for name in row.options))
    return [name for name in names if len({str(row.options.get(name, "")) for row in rows}) > 1]
