"""The header of a PLY: what its elements are called and made of.

Its lines may end in LF, CR LF or CR and hold comments in any encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADER_AT_MOST = 1 << 20
"""Bytes that are searched for the end of a header."""
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
}  # fmt: skip
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}


class BrokenPlyError(ValueError):
    """The file is no complete PLY; the message says what is wrong with it."""


@dataclass(frozen=True)
class Property:
    """A column of an element: a number, or a list of numbers where `counted` is given."""

    name: str
    kind: str  # numpy's name without byte order
    counted: str | None = None  # the type of a list's length


@dataclass(frozen=True)
class Element:
    name: str
    count: int
    properties: tuple[Property, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.properties)

    @property
    def has_lists(self) -> bool:
        return any(p.counted is not None for p in self.properties)

    def row(self, order: str) -> np.dtype[Any]:
        """Of an element without lists; properties of the same name get numbers."""
        fields: dict[str, str] = {}
        for p in self.properties:
            name = p.name
            while name in fields:
                name += "+"
            fields[name] = order + p.kind
        return np.dtype(list(fields.items()))


@dataclass(frozen=True)
class PlyHeader:
    order: str  # "<", ">" or "" for ASCII
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    size: int  # bytes up to the first element

    def element(self, name: str) -> Element | None:
        return next((e for e in self.elements if e.name == name), None)


def parse_header(start: bytes) -> PlyHeader:
    """The header from the first bytes of a file. Errors: BrokenPlyError."""
    order: str | None = None
    elements: list[Element] = []
    comments: list[str] = []
    for line, end in _lines(start):
        key, *words = line.split() or [""]
        if key == "end_header":
            if order is None:
                raise BrokenPlyError("no format line in its header")
            return PlyHeader(order, tuple(elements), tuple(comments), end)
        if key == "format":
            order = ORDERS.get(words[0] if words else "")
            if order is None:
                raise BrokenPlyError(f"its format is {' '.join(words)!r}")
        elif key in ("comment", "obj_info"):
            comments.append(line[len(key) :].strip())
        elif key == "element":
            elements.append(_element(words))
        elif key == "property":
            if not elements:
                raise BrokenPlyError("a property comes before any element")
            last = elements[-1]
            elements[-1] = Element(last.name, last.count, (*last.properties, _property(words)))
    raise BrokenPlyError(f"no end_header in its first {HEADER_AT_MOST:,} bytes")


def _lines(start: bytes) -> Iterator[tuple[str, int]]:
    """Every whole line after the first, and where the next begins."""
    first = min((i for i in (start.find(b"\n", 3), start.find(b"\r", 3)) if i >= 0), default=-1)
    if not start.startswith(b"ply") or first < 0 or start[3:first].strip():
        raise BrokenPlyError("it does not begin with a line 'ply'")
    newline = b"\r\n" if start[first : first + 2] == b"\r\n" else start[first : first + 1]
    at = first + len(newline)
    while (end := start.find(newline, at)) >= 0:
        raw = start[at:end]
        at = end + len(newline)
        try:
            yield raw.decode("utf-8"), at
        except UnicodeDecodeError:
            yield raw.decode("latin-1"), at


def _element(words: list[str]) -> Element:
    try:
        name, count = words[0], int(words[1])
    except (IndexError, ValueError) as error:
        raise BrokenPlyError(f"its header has a line 'element {' '.join(words)}'") from error
    if count < 0:
        raise BrokenPlyError(f"it declares {count} of element {name}")
    return Element(name, count, ())


def _property(words: list[str]) -> Property:
    kinds = words[1:3] if words[:1] == ["list"] else words[:1]
    if len(words) < len(kinds) + 1 + (words[:1] == ["list"]) or any(k.lower() not in TYPES for k in kinds):
        raise BrokenPlyError(f"its header has a line 'property {' '.join(words)}'")
    *counted, kind = (TYPES[k.lower()] for k in kinds)
    if counted and counted[0][0] == "f":
        raise BrokenPlyError(f"a list whose length is a {kinds[0]}")
    return Property(words[-1], kind, counted[0] if counted else None)
