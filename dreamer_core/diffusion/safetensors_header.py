"""Reads what a `.safetensors` file says about itself without loading it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open


class BrokenFileError(ValueError):
    """The file is not a complete `.safetensors` file; the message says what it holds instead."""


@dataclass(frozen=True)
class Header:
    """Names and shapes of the tensors in a file, and its free-text metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def having(self, *parts: str) -> bool:
        """Whether any tensor's name contains one of `parts`."""
        return any(part in name for name in self.shapes for part in parts)

    def starting(self, prefix: str) -> bool:
        """Whether any tensor's name starts with `prefix`."""
        return any(name.startswith(prefix) for name in self.shapes)

    def stripped(self, prefix: str) -> Header:
        """The tensors under `prefix`, named without it."""
        inside = {n[len(prefix) :]: shape for n, shape in self.shapes.items() if n.startswith(prefix)}
        return Header(inside, self.metadata)


def read_header(path: Path) -> Header:
    """Header of a `.safetensors` file. Errors: BrokenFileError (also for a file cut short), OSError."""
    size = path.stat().st_size
    if size == 0:
        raise BrokenFileError("an empty file")
    with path.open("rb") as file:
        _refuse_other_formats(file.read(64), path)
    try:
        with safe_open(path, framework="np") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
            return Header(shapes, tensors.metadata() or {})
    except SafetensorError as error:
        why = str(error).removeprefix("Error while deserializing header: ")
        raise BrokenFileError(f"a safetensors file that is cut short or damaged ({size:,} bytes; {why})") from error


def _refuse_other_formats(start: bytes, path: Path) -> None:
    if start[8:9] == b"{":  # a length that happens to look like another format's mark
        return
    if start.startswith(b"GGUF"):
        raise BrokenFileError("a GGUF file")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise BrokenFileError("a pickled PyTorch file")
    if start.startswith((b"ply\n", b"ply\r")):
        raise BrokenFileError("a PLY file of points or Gaussians")
    if start.startswith(b"version https://git-lfs"):
        raise BrokenFileError("a Git LFS pointer instead of the file itself")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise BrokenFileError("a web page instead of the file itself")
    if path.suffix.lower() in (".ckpt", ".pt", ".pth"):
        raise BrokenFileError("a pickled PyTorch file")


def content_key(path: Path) -> str:
    """A short key of a file's content: its size, its first 64 KiB and 64 samples spread over the rest."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 16))
        for i in range(64):
            file.seek(size * i // 64)
            digest.update(file.read(1 << 12))
    return digest.hexdigest()[:16]
