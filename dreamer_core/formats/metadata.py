"""What a splat was made from: comment lines in a PLY's header, and a JSON file beside any splat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomically

COMMENT = b"comment dreamer-xl "
"""Begins each of our lines in a PLY's header; a JSON object with one entry follows."""

COMMENTS_AT_MOST = 32_768
"""Bytes of our comment lines: viewers search no more than the first 65,536 bytes for the end of the header (spark)."""

_END = b"end_header\n"


def sidecar(path: Path) -> Path:
    """The JSON file beside a splat: mug.spz and mug.compressed.ply share mug.json."""
    stem = path.name[: -len(".compressed.ply")] if path.name.lower().endswith(".compressed.ply") else path.stem
    return path.with_name(f"{stem}.json")


def comment_lines(metadata: Mapping[str, Any]) -> bytes:
    """One line per entry, in ASCII; entries that no longer fit are left out (they are in the JSON beside the file)."""
    lines = b""
    for key, value in metadata.items():
        text = json.dumps({key: value}, default=str).replace(
            "end_header", "end\\u005fheader"
        )  # some seek just that word
        line = COMMENT + text.encode("ascii") + b"\n"
        if len(lines) + len(line) <= COMMENTS_AT_MOST:
            lines += line
    return lines


def with_comments(ply: bytes, metadata: Mapping[str, Any]) -> bytes:
    """The PLY with comment lines after its `format` line."""
    first = ply.index(b"\n", ply.index(b"\nformat ") + 1) + 1
    return ply[:first] + comment_lines(metadata) + ply[first:]


def ply_header(path: Path) -> bytes:
    """The header up to its last line; at most 1 MiB is searched, and nothing comes from files of another kind."""
    with path.open("rb") as file:
        start = file.read(1 << 20)
    end = start.find(_END.rstrip())
    return start[:end] if start.startswith(b"ply") and end >= 0 else b""


def write_sidecar(path: Path, metadata: Mapping[str, Any]) -> None:
    """The JSON beside the splat `path`, atomically."""
    text = json.dumps(dict(metadata), indent=2, default=str) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(sidecar(path), write)


def read_metadata(path: Path) -> dict[str, Any]:
    """What was recorded with a splat: from its JSON, and from its own comments, which win; empty where nothing is.

    A JSON of that name which another program wrote is taken as it is; one that is broken or no object is ignored.
    """
    found: dict[str, Any] = {}
    try:
        beside = json.loads(sidecar(path).read_text(encoding="utf-8"))
        if isinstance(beside, dict):
            found.update(beside)
    except (OSError, ValueError):
        pass
    if path.suffix.lower() == ".ply":
        for line in ply_header(path).splitlines():
            if line.startswith(COMMENT):
                try:
                    entry = json.loads(line[len(COMMENT) :])
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    found.update(entry)
    return found
