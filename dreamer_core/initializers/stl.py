""".stl: triangles, in binary with the colours that some programs put into the two spare bytes of each."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from .mesh import Array, Mesh
from .point_cloud import PointCloud

log = logging.getLogger(__name__)

RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("spare", "<u2")])
HEADER = 84
OWN = 1 << 15
"""In VisCAM's files this bit says that a colour is there; in Materialise's that it is the file's."""
NUMBERS = re.compile(rb"(?i)\bvertex\s+(\S+)\s+(\S+)\s+(\S+)")
FACET, END = re.compile(rb"(?i)\bfacet\s+normal\b"), re.compile(rb"(?i)\bend[ \t]*solid\b")
NAME = re.compile(rb"(?im)^[ \t]*solid\b[^\r\n]*")


class BrokenStlError(ValueError):
    """The file is no .stl that can be read; the message says what is wrong with it."""


def read_stl(path: Path, field: str) -> list[Mesh | PointCloud]:
    """The triangles of an .stl. Errors: BrokenStlError, OSError."""
    data = path.read_bytes()
    count = int.from_bytes(data[80:HEADER], "little")
    if len(data) >= HEADER and HEADER + count * RECORD.itemsize == len(data):
        return [_binary(data, count)]
    text = data.lstrip()[:5].lower() == b"solid"
    if text and (b"facet" in data[:2000].lower() or len(data) < HEADER):  # a binary header may say solid, too
        return _ascii(data)
    rest = len(data) - HEADER - count * RECORD.itemsize
    if rest > 0:
        more, odd = divmod(rest, RECORD.itemsize)
        if more and not odd:  # some programs write no count
            more += count
            log.warning("%s: it declares %s triangles and holds %s; all are read", path, f"{count:,}", f"{more:,}")
            return [_binary(data, more)]
        log.warning("%s: %s bytes behind its %s triangles are left out", path, f"{rest:,}", f"{count:,}")
        return [_binary(data, count)]
    raise BrokenStlError(f"it declares {count:,} triangles in {len(data):,} bytes")


def _binary(data: bytes, count: int) -> Mesh:
    rows = np.frombuffer(data, RECORD, count=count, offset=HEADER)
    places = rows["corners"].astype(np.float64).reshape(-1, 3)
    return Mesh(places, np.arange(3 * count).reshape(-1, 3), face_rgb=_colors(data[:80], rows["spare"]))


def _colors(header: bytes, spare: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> Array | None:  # [F, 3]
    """Five bits a channel: blue lowest (VisCAM), or red lowest where the header says COLOR= (Materialise)."""
    at = header.find(b"COLOR=")
    fields = np.stack([spare >> 10 & 31, spare >> 5 & 31, spare & 31], axis=-1) / 31.0
    if at >= 0 and len(header) >= at + 9:
        whole = np.frombuffer(header, np.uint8, 3, at + 6) / 255.0
        return np.where((spare & OWN)[:, None] > 0, whole, fields[:, ::-1])
    if not (spare & OWN).any():
        return None
    return np.where((spare & OWN)[:, None] > 0, fields, 0.5)


def _ascii(data: bytes) -> list[Mesh | PointCloud]:
    data = NAME.sub(b"", data)  # a name may be any words
    try:
        numbers = np.array([list(map(float, m.groups())) for m in NUMBERS.finditer(data)], dtype=np.float64)
    except ValueError as error:
        raise BrokenStlError(f"a vertex that is no numbers ({str(error)[:60]})") from error
    facets = len(FACET.findall(data))
    if len(numbers) != 3 * facets:
        raise BrokenStlError(f"it ends in the middle of a triangle, after {len(numbers):,} vertices")
    if facets and not END.search(data, max(data.lower().rfind(b"vertex"), 0)):
        raise BrokenStlError(f"it ends after {facets:,} triangles, without its last line, endsolid")
    return [Mesh(numbers, np.arange(len(numbers)).reshape(-1, 3))] if len(numbers) else []
