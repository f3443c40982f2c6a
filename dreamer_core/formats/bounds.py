"""What reading a file may take, said before it is taken."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError

SHARE = 0.8
"""Of the free memory that one file may fill."""
PIECE = 1 << 20
"""Bytes that are unpacked at once."""
DEFLATE_AT_MOST = 1032
"""Bytes that one byte of a gzip stream can unpack to (zlib's technical details)."""


def require_memory(
    needed: int, path: Path, field: str, remedy: str = "reduce its triangles or points first (e.g. Blender's Decimate)"
) -> None:
    """Errors: InputError where reading `path` would need more bytes than are free."""
    import psutil

    free = psutil.virtual_memory().available
    if needed > SHARE * free:
        got = f"{path}, which would take about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free"
        raise InputError(field, "a file that fits the memory", got, remedy)


def gunzip(data: bytes, bound: Callable[[bytes], int], first: int) -> bytes:
    """A gzip stream unpacked piece by piece, up to a bound that its own first bytes declare.

    `bound(start)` gives the most that may come, from the first `first` bytes; one byte more than that is returned where
    there is more, so that the caller can tell. Errors: ValueError for a stream that is cut short or damaged.
    """
    out = bytearray()
    most: int | None = None
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for start in range(0, len(data), PIECE):
        rest = data[start : start + PIECE]
        while not stream.eof:
            try:
                piece = stream.decompress(rest, PIECE)
            except zlib.error as error:
                raise ValueError(f"no gzip stream, or a damaged one ({error})") from error
            out += piece
            rest = stream.unconsumed_tail
            if most is None and len(out) >= first:
                most = bound(bytes(out[:first]))
            if most is not None and len(out) > most:
                return bytes(out[: most + 1])
            if not piece and not rest:
                break
        if stream.eof:
            return bytes(out)
    raise ValueError(f"the gzip stream is cut short after {len(out):,} bytes")
