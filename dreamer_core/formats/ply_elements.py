"""Reads the elements of a PLY one by one, whatever stands beside them.

Elements come in any order, with any properties, in ASCII or binary of either byte order. What lies after the element
that is wanted is never touched, so lists of mixed length, further elements and trailing bytes do no harm. Sizes that a
header declares are held against the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ply_syntax import HEADER_AT_MOST, BrokenPlyError, Element, parse_header

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lists:
    """Lists of one property, one after another."""

    lengths: NDArray[np.int64]  # [N]
    values: NDArray[Any]  # [lengths.sum()]

    def __len__(self) -> int:
        return len(self.lengths)


Columns = dict[str, "NDArray[Any] | Lists"]


class PlyFile:
    """A PLY as its header and what its elements hold."""

    def __init__(self, path: Path) -> None:
        """Reads the header. Errors: BrokenPlyError, OSError."""
        self.path, self.size = path, path.stat().st_size
        with path.open("rb") as file:
            self.header = parse_header(file.read(HEADER_AT_MOST))
        self._data: NDArray[np.uint8] | None = None
        self._tokens: list[bytes] | None = None
        self._first_row = 0

    def read(self, name: str) -> Columns:
        """Columns of an element by name; empty where there is none. Numbers in the byte order of this machine.

        ASCII gives float64 for every float, since its words may say more than the declared type holds.
        Errors: BrokenPlyError, OSError.
        """
        wanted = self.header.element(name)
        if wanted is None:
            return {}
        at = 0
        for element in self.header.elements:
            if element is wanted:
                break
            at = self._walk(element, at, None)
        columns: Columns = {}
        at = self._walk(wanted, at, columns)
        if wanted is self.header.elements[-1]:
            self._say_rest(wanted, at)
        return columns

    def _say_rest(self, last: Element, at: int) -> None:
        """A line about what lies behind the `last` element, which ends at `at`."""
        ascii_text = not self.header.order
        rest = len(self._words() if ascii_text else self._bytes()) - at
        if rest > 0 and last.properties:
            what = "words" if ascii_text else "bytes"
            log.warning(
                "%s: %s %s behind the %s declared rows of %s are left out",
                *(self.path, f"{rest:,}", what, f"{last.count:,}", last.name),
            )

    def _walk(self, element: Element, at: int, into: Columns | None) -> int:
        """Where the element that begins at `at` ends (bytes, or words of ASCII), its columns put into `into`."""
        if not element.properties:
            return at
        if not self.header.order:
            return self._walk_words(element, at, into)
        if element.has_lists:
            return self._walk_lists(element, at, into)
        row = element.row(self.header.order)
        end = at + element.count * row.itemsize
        data = self._bytes()
        if end > len(data):
            raise BrokenPlyError(_too_few(element, max(0, len(data) - at) // row.itemsize))
        if into is not None:
            rows = np.frombuffer(data, row, count=element.count, offset=at) if element.count else np.zeros(0, row)
            for column in row.names or ():
                into[column] = rows[column].astype(row[column].newbyteorder("="))
        return end

    def _bytes(self) -> NDArray[np.uint8]:
        """What comes after the header, mapped, not read."""
        if self._data is None:
            empty = self.size <= self.header.size
            self._data = (
                np.zeros(0, np.uint8) if empty else np.memmap(self.path, np.uint8, mode="r", offset=self.header.size)
            )
        return self._data

    def _walk_lists(self, element: Element, at: int, into: Columns | None) -> int:
        """Row by row, for a length may stand anywhere; the values are gathered afterwards, all of a length at once."""
        data = self._bytes()
        least = sum(np.dtype(p.counted or p.kind).itemsize for p in element.properties)
        if at + element.count * least > len(data):
            raise BrokenPlyError(_too_few(element, max(0, len(data) - at) // least))
        if (end := self._walk_even_lists(element, at, into)) is not None:
            return end
        view = data.data
        order = "big" if self.header.order == ">" else "little"
        sizes = [
            (np.dtype(p.kind).itemsize, p.counted and np.dtype(p.counted).itemsize, str(p.counted)[0] == "i")
            for p in element.properties
        ]
        starts: list[list[int]] = [[] for _ in sizes]
        lengths: list[list[int]] = [[] for _ in sizes]
        for i in range(element.count):
            for k, (size, counted, signed) in enumerate(sizes):
                length = 1
                if counted:
                    length = int.from_bytes(view[at : at + counted], order, signed=signed)  # type: ignore[arg-type]
                    at += counted
                    lengths[k].append(length)
                starts[k].append(at)
                at += length * size
                if length < 0 or at > len(data):
                    raise BrokenPlyError(_too_few(element, i))
        if into is not None:
            for p, begin, many in zip(element.properties, starts, lengths):
                kind = np.dtype(self.header.order + p.kind)
                if p.counted is None:
                    ones = np.ones(len(begin), np.int64)
                    into.setdefault(p.name, _gathered(data, kind, np.array(begin, np.int64), ones))
                else:
                    counts = np.array(many, np.int64)
                    into.setdefault(p.name, Lists(counts, _gathered(data, kind, np.array(begin, np.int64), counts)))
        return at

    def _walk_even_lists(self, element: Element, at: int, into: Columns | None) -> int | None:
        """The same at once, where every row's lists are as long as the first row's, as in a mesh of triangles."""
        data, order, start = self._bytes(), self.header.order, at
        fields: list[Any] = []
        for k, p in enumerate(element.properties if element.count else ()):
            length = 1
            if p.counted is not None:
                size = np.dtype(p.counted).itemsize
                length = int(np.frombuffer(data[at : at + size].tobytes().ljust(size, b"\0"), order + p.counted)[0])
                fields.append((f"n{k}", order + p.counted))
                at += size
            if length < 0 or at + length * np.dtype(p.kind).itemsize > len(data):
                return None
            fields.append((f"v{k}", order + p.kind, (length,)))
            at += length * np.dtype(p.kind).itemsize
        row = np.dtype(fields)
        if not element.count or start + element.count * row.itemsize > len(data):
            return None
        rows = np.frombuffer(data, row, count=element.count, offset=start)
        lists = [k for k, p in enumerate(element.properties) if p.counted is not None]
        if any(bool((rows[f"n{k}"] != rows[f"n{k}"][0]).any()) for k in lists):
            return None
        for k, p in enumerate(element.properties if into is not None else ()):
            values = rows[f"v{k}"].astype(np.dtype(p.kind)).reshape(-1)
            lengths = rows[f"n{k}"].astype(np.int64) if p.counted is not None else None
            column = values if lengths is None else Lists(lengths, values)
            into.setdefault(p.name, column)  # type: ignore[union-attr]
        return start + element.count * row.itemsize

    def _walk_words(self, element: Element, at: int, into: Columns | None) -> int:
        words = self._words()
        width = len(element.properties)
        if at == 0 and element.count and not element.has_lists and width < self._first_row < len(words):
            raise BrokenPlyError(
                f"the first row of element {element.name} holds {self._first_row:,} words where its header declares "
                f"{width}"
            )
        if at + element.count * width > len(words):
            raise BrokenPlyError(_too_few(element, max(0, len(words) - at) // width))
        if element.has_lists:
            return self._walk_word_lists(element, words, at, into)
        end = at + element.count * width
        if into is not None:
            table = _numbers(words[at:end], element).reshape(-1, width)
            for i, name in enumerate(element.row("=").names or ()):
                into[name] = _as_declared(table[:, i].copy(), element.properties[i].kind)
        return end

    def _words(self) -> list[bytes]:
        """What comes after the header of an ASCII file."""
        if self._tokens is None:
            with self.path.open("rb") as file:
                file.seek(self.header.size)
                text = file.read()
            self._tokens = text.split()
            self._first_row = len(re.split(rb"[\r\n]", text.lstrip(), maxsplit=1)[0].split())
        return self._tokens

    def _walk_word_lists(self, element: Element, words: list[bytes], at: int, into: Columns | None) -> int:
        numbers: list[list[bytes]] = [[] for _ in element.properties]
        lengths: list[list[int]] = [[] for _ in element.properties]
        for i in range(element.count):
            for k, p in enumerate(element.properties):
                length = 1
                if p.counted is not None:
                    length = int(_numbers(words[at : at + 1], element)[0]) if at < len(words) else -1
                    at += 1
                    lengths[k].append(length)
                if length < 0 or at + length > len(words):
                    raise BrokenPlyError(_too_few(element, i))
                if into is not None:
                    numbers[k] += words[at : at + length]
                at += length
        if into is not None:
            for p, values, many in zip(element.properties, numbers, lengths):
                column = _as_declared(_numbers(values, element), p.kind)
                into.setdefault(p.name, column if p.counted is None else Lists(np.array(many, np.int64), column))
        return at


def _too_few(element: Element, there: int) -> str:
    return f"it declares {element.count:,} of element {element.name} and holds {there:,}"


NO_NUMBER = re.compile(rb"([+-]?)(?:nan\([\w()]*\)|1\.#(?:QNAN|SNAN|IND|INF)0*)", re.IGNORECASE)
"""NaN and inf as C's libraries write them: -nan(ind), nan(0x8000), 1.#QNAN, -1.#INF."""


def _number(word: bytes) -> float:
    """Errors: ValueError."""
    odd = NO_NUMBER.fullmatch(word)
    if odd is None:
        return float(word)
    return float(odd[1] + b"inf") if b"#INF" in word.upper() else float("nan")


def _numbers(words: list[bytes], element: Element) -> NDArray[np.float64]:
    try:
        try:
            return np.fromiter(map(float, words), np.float64, count=len(words))
        except ValueError:
            return np.fromiter(map(_number, words), np.float64, count=len(words))
    except ValueError as error:
        raise BrokenPlyError(f"element {element.name} holds a word that is no number ({str(error)[:80]})") from error


def _as_declared(column: NDArray[np.float64], kind: str) -> NDArray[Any]:
    """Whole numbers in their own type, which says what they count up to; as they are where they do not fit."""
    if kind[0] == "f" or not column.size or not bool(np.isfinite(column).all()):
        return column
    bounds = np.iinfo(kind)
    fits = column.min() >= bounds.min and column.max() < float(bounds.max) + 1 and bool((column % 1 == 0).all())
    return column.astype(kind) if fits else column


def _gathered(
    data: NDArray[np.uint8], kind: np.dtype[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[Any]:
    """The numbers that begin at these bytes, so many each, one after another."""
    out = np.zeros(int(lengths.sum()), kind.newbyteorder("="))
    first = np.cumsum(lengths) - lengths
    for length in np.unique(lengths):
        if length == 0:
            continue
        rows = np.flatnonzero(lengths == length)
        at = starts[rows, None] + np.arange(int(length) * kind.itemsize)
        values = np.ascontiguousarray(data[at]).view(kind)
        out[first[rows, None] + np.arange(int(length))] = values
    return out
