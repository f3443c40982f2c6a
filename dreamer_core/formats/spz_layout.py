"""What an .spz holds, byte by byte (nianticlabs/spz, README, "File format"; extensions/README.md).

Versions 1 to 3 are one gzip stream: 16 bytes of header, the sections, records of extensions. Version 4 is a header of
32 bytes, the records, a table of sizes, and each section as a zstd stream. Nothing is unpacked beyond what the header
declares, and a header that declares more than its file can hold is refused.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..frames import rotated
from ..gaussians import Gaussians
from .bounds import DEFLATE_AT_MOST, gunzip, require_memory

log = logging.getLogger(__name__)

MAGIC = 0x5053474E
HEADER, HEADER_4 = struct.Struct("<IIIBBBB"), struct.Struct("<IIIBBBBI12x")
COEFFICIENTS = (0, 3, 8, 15, 24)
"""Higher SH of each degree."""
KEPT = 15
ANTIALIASED, EXTENDED = 1, 2
"""Flags of the header."""
RECORDS_AT_MOST = 1 << 20
"""Bytes of extensions."""
FRAME, ORBIT = 0xADBE0003, 0xADBE0002
"""Extensions SPZ_ADOBE_coordinate_system and SPZ_ADOBE_safe_orbit_camera."""
FRAMES = (
    "", "LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF", "LFD", "RFD", "LFU", "RFU", "LBD", "RBD", "LBU", "RBU",
)  # fmt: skip
"""Where X, Y and Z of a file point, by the number that its extension gives; the first is not declared."""
AXES = {"R": (0, 1), "L": (0, -1), "D": (1, 1), "U": (1, -1), "F": (2, 1), "B": (2, -1)}
"""A letter as an axis of RDF, the frame of 3DGS files, and a sign."""
PER_GAUSSIAN = 700
"""Bytes that reading takes for each Gaussian of degree 3, rounded up."""


class BrokenSpzError(ValueError):
    """The file is no complete .spz; the message says what is wrong with it."""


@dataclass(frozen=True)
class SpzHeader:
    version: int
    count: int
    degree: int
    fraction: int
    flags: int
    streams: int = 0  # of version 4, and where their sizes begin
    table: int = 0

    @property
    def sections(self) -> tuple[int, ...]:
        """Bytes of positions, opacities, colours, scales, rotations and SH."""
        n = self.count
        place, turn = 6 if self.version == 1 else 9, 4 if self.version >= 3 else 3
        return place * n, n, 3 * n, 3 * n, turn * n, 3 * n * COEFFICIENTS[self.degree]

    @property
    def size(self) -> int:
        return sum(self.sections)


def parse_header(start: bytes) -> SpzHeader:
    """Errors: BrokenSpzError for another file, or values that the format does not have."""
    if len(start) < HEADER.size:
        raise BrokenSpzError(f"it holds {len(start)} bytes")
    magic, version, count, degree, fraction, flags, streams = HEADER.unpack_from(start)
    if magic != MAGIC:
        raise BrokenSpzError("it does not begin with NGSP")
    if not 1 <= version <= 4:
        raise BrokenSpzError(f"it is of version {version}, and 1 to 4 are read here")
    if degree >= len(COEFFICIENTS):
        raise BrokenSpzError(f"it has spherical harmonics of degree {degree}")
    if fraction > 24:
        raise BrokenSpzError(f"its places have {fraction} bits after the point")
    if version < 4:
        return SpzHeader(version, count, degree, fraction, flags)
    if len(start) < HEADER_4.size:
        raise BrokenSpzError(f"it holds {len(start)} bytes")
    return SpzHeader(version, count, degree, fraction, flags, streams, HEADER_4.unpack_from(start)[7])


def read_sections(data: bytes, path: Path, field: str) -> tuple[SpzHeader, bytes, bytes]:
    """The header, the sections one after another, and the records of extensions.

    Errors: BrokenSpzError; InputError where the memory does not suffice, or zstandard is missing.
    """
    if data[:4] == MAGIC.to_bytes(4, "little"):
        return _read_zstd(data, path, field)

    def bound(start: bytes) -> int:
        header = parse_header(start)
        most = HEADER.size + header.size
        if most > DEFLATE_AT_MOST * len(data):
            raise BrokenSpzError(f"{len(data):,} bytes cannot hold the {header.count:,} Gaussians that it declares")
        require_memory(header.count * PER_GAUSSIAN, path, field, "use fewer Gaussians")
        return most + RECORDS_AT_MOST

    raw = gunzip(data, bound, HEADER.size)
    header = parse_header(raw)
    if header.version == 4:
        raise BrokenSpzError("it is gzip, and says version 4, which is not")
    records = raw[HEADER.size + header.size :]
    if len(raw) < HEADER.size + header.size:
        got = f"it declares {header.count:,} Gaussians in {header.size:,} bytes and holds {len(raw) - HEADER.size:,}"
        raise BrokenSpzError(got)
    if len(records) > RECORDS_AT_MOST:
        raise BrokenSpzError(f"more than {RECORDS_AT_MOST:,} bytes follow its {header.count:,} Gaussians")
    return header, raw[HEADER.size : HEADER.size + header.size], records


def _read_zstd(data: bytes, path: Path, field: str) -> tuple[SpzHeader, bytes, bytes]:
    header = parse_header(data)
    if header.version < 4:
        raise BrokenSpzError(f"it says version {header.version}, which is gzip, and is not")
    try:
        import zstandard
    except ImportError as error:
        remedy = "pip install zstandard"
        raise InputError(field, "the package zstandard, which an .spz of version 4 needs", "none", remedy) from error
    sizes = [n for n in header.sections if n]
    end = header.table + 16 * header.streams
    if header.streams != len(sizes) or not HEADER_4.size <= header.table <= end <= len(data):
        raise BrokenSpzError(f"its table names {header.streams} sections at {header.table}, where {len(sizes)} belong")
    table = struct.unpack_from(f"<{2 * header.streams}Q", data, header.table)
    if end + sum(table[::2]) > len(data):
        raise BrokenSpzError(f"its sections take {sum(table[::2]):,} bytes and {len(data) - end:,} are there")
    require_memory(header.count * PER_GAUSSIAN, path, field, "use fewer Gaussians")
    unpacker, parts, at = zstandard.ZstdDecompressor(max_window_size=1 << 27), [], end
    for packed, unpacked, wanted in zip(table[::2], table[1::2], sizes):
        if unpacked != wanted:
            raise BrokenSpzError(f"a section declares {unpacked:,} bytes where {wanted:,} belong")
        try:
            with unpacker.stream_reader(data[at : at + packed]) as stream:
                part = stream.read(wanted + 1)
        except zstandard.ZstdError as error:
            raise BrokenSpzError(f"a damaged section ({error})") from error
        if len(part) != wanted:
            raise BrokenSpzError(f"a section holds {len(part):,} bytes where {wanted:,} belong")
        parts.append(part)
        at += packed
    return header, b"".join(parts), data[HEADER_4.size : header.table]


def unpack(header: SpzHeader, data: bytes, path: Path) -> Gaussians:
    """The Gaussians of the sections, as they stand in the file."""
    n, at, parts = header.count, 0, []
    for size in header.sections:
        parts.append(np.frombuffer(data, np.uint8, count=size, offset=at))
        at += size
    places, alphas, colors, scales, turns, sh = parts
    higher = COEFFICIENTS[header.degree]
    if higher > KEPT:
        log.warning("%s: spherical harmonics above degree 3 are left out", path)
    if header.flags & ANTIALIASED:
        log.warning("%s: was trained with anti-aliasing, and is drawn without", path)
    if header.flags & ~(ANTIALIASED | EXTENDED):
        log.warning("%s: flags that are not used: %#04x", path, header.flags & ~(ANTIALIASED | EXTENDED))
    coefficients = (sh.reshape(n, higher, 3)[:, :KEPT].astype(np.float32) - 128) / 128
    return Gaussians(
        means=torch.from_numpy(_places(header, places)),
        quats=torch.from_numpy(
            (_smallest_three if header.version >= 3 else _three)(turns.reshape(n, 4 if header.version >= 3 else 3))
        ),
        log_scales=torch.from_numpy(scales.reshape(n, 3).astype(np.float32) / 16 - 10),
        logit_opacities=(torch.from_numpy(alphas.astype(np.float32)) / 255).clamp(1e-6, 1 - 1e-6).logit(),
        sh0=torch.from_numpy((colors.reshape(n, 1, 3).astype(np.float32) / 255 - 0.5) / np.float32(0.15)),
        shN=torch.from_numpy(coefficients),
    )


def _places(header: SpzHeader, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """24-bit fixed point; half floats in version 1."""
    if header.version == 1:
        return raw.view("<f2").astype(np.float32).reshape(-1, 3)
    low, middle, high = raw.reshape(-1, 3).astype(np.int32).T
    whole = low | middle << 8 | (high ^ 0x80) - 0x80 << 16
    return (whole / 2.0**header.fraction).astype(np.float32).reshape(-1, 3)


def _three(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """x, y and z in 8 bits each; w is what a length of 1 leaves."""
    xyz = raw.astype(np.float32) / 127.5 - 1
    w = np.sqrt(np.clip(1 - (xyz**2).sum(axis=-1, keepdims=True), 0, None))
    return np.concatenate([w, xyz], axis=-1)


def _smallest_three(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """2 bits for the place of the largest in xyzw, then the others from the first down: a sign and 9 bits each."""
    word = np.ascontiguousarray(raw).view("<u4")[:, 0].copy()
    largest = (word >> np.uint32(30)).astype(np.int64)
    out = np.zeros((len(word), 4), np.float32)
    for i in (3, 2, 1, 0):
        mine = largest != i
        size = (word & np.uint32(511)).astype(np.float32) / 511 * np.float32(np.sqrt(0.5))
        out[mine, i] = np.where(word >> np.uint32(9) & np.uint32(1), -size, size)[mine]
        word[mine] >>= np.uint32(10)
    rows = np.arange(len(word))
    out[rows, largest] = np.sqrt(np.clip(1 - (out**2).sum(axis=-1), 0, None))
    return out[:, [3, 0, 1, 2]]


def declared_frame(records: bytes, path: Path) -> str:
    """The frame that an extension declares, RDF where none does. Says which extensions are not used.

    Errors: BrokenSpzError for records that are cut short, and a frame that is not known.
    """
    frame, at = "RDF", 0
    while at < len(records):
        if at + 8 > len(records):
            raise BrokenSpzError("its extensions are cut short")
        kind, size = struct.unpack_from("<II", records, at)
        content = records[at + 8 : at + 8 + size]
        at += 8 + size
        if len(content) < size:
            raise BrokenSpzError(f"its extension {kind:#010x} is cut short")
        if kind == FRAME:
            number = int.from_bytes(content[:4], "little") if size >= 4 else -1
            if not 0 <= number < len(FRAMES):
                raise BrokenSpzError(f"it declares the coordinate system {number}, and 1 to 16 are known here")
            frame = FRAMES[number] or frame
        elif kind != ORBIT:  # which limits a viewer's camera
            log.warning("%s: extension %#010x is not used", path, kind)
    return frame


def in_rdf(gaussians: Gaussians, frame: str) -> Gaussians:
    """The same in the frame of 3DGS files (X right, Y down, Z forward)."""
    if frame == "RDF":
        return gaussians
    matrix = torch.zeros(3, 3, dtype=torch.float64)
    for column, letter in enumerate(frame):
        axis, sign = AXES[letter]
        matrix[axis, column] = sign
    return rotated(gaussians, matrix)


def gaussians_of(data: bytes, path: Path, field: str) -> Gaussians:
    """The Gaussians of an .spz in the frame of 3DGS files. Errors: BrokenSpzError, InputError."""
    header, sections, records = read_sections(data, path, field)
    extended = header.flags & EXTENDED
    if records and not extended:
        log.warning("%s: %s bytes after its Gaussians are not used", path, f"{len(records):,}")
    frame = declared_frame(records, path) if extended else "RDF"
    return in_rdf(unpack(header, sections, path), frame)
