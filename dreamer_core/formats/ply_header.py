"""The header of a PLY: its properties, and what was recorded in it as comment lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .ply_elements import PlyFile
from .ply_syntax import BrokenPlyError

COMMENT = b"comment dreamer-xl "
"""Begins each of our lines in a PLY's header; a JSON object with one entry follows."""

COMMENTS_AT_MOST = 32_768
"""Bytes of our comment lines: viewers search no more than the first 65,536 bytes for the end of the header (spark)."""

_END = b"end_header\n"


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


def property_names(path: Path) -> set[str]:
    """Names of the properties of all elements; none of a file that is no PLY. Errors: OSError."""
    try:
        return {name for element in PlyFile(path).header.elements for name in element.names}
    except BrokenPlyError:
        return set()


def read_comments(path: Path) -> dict[str, Any]:
    """What our comment lines hold."""
    found: dict[str, Any] = {}
    for line in ply_header(path).splitlines():
        if line.startswith(COMMENT):
            try:
                entry = json.loads(line[len(COMMENT) :])
            except ValueError:
                continue
            if isinstance(entry, dict):
                found.update(entry)
    return found
