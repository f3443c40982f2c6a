"""Splat files by suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..gaussians import Gaussians
from .compressed_ply import write_compressed_ply
from .metadata import write_sidecar
from .ply import read_ply, write_ply
from .splat import read_splat, write_splat
from .spz import read_spz, write_spz


class _Writer(Protocol):
    def __call__(
        self, gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
    ) -> None: ...


_READERS: dict[str, Callable[[Path, str], Gaussians]] = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz}

_WRITERS: dict[str, _Writer] = {
    ".ply": write_ply,
    ".compressed.ply": write_compressed_ply,
    ".splat": write_splat,
    ".spz": write_spz,
}

READABLE = tuple(_READERS)
"""Lower-case suffixes of the files that `load_gaussians` reads."""

WRITABLE = tuple(_WRITERS)
"""Lower-case suffixes of the files that `save_gaussians` writes."""


def splat_suffix(path: Path) -> str:
    """The suffix that decides the format, in lower case: ".compressed.ply" counts as one."""
    return ".compressed.ply" if path.name.lower().endswith(".compressed.ply") else path.suffix.lower()


def load_gaussians(path: Path, field: str = "FILE") -> Gaussians:
    """The Gaussians of a splat file, in our world, by its suffix. `field` names the option in errors.

    Errors: InputError for another suffix, and for a missing, broken or empty file.
    """
    path = Path(path)
    kinds = f"a splat file ({', '.join(READABLE)})"
    if path.is_dir():
        raise InputError(field, kinds, f"{path}, which is a folder")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(field, kinds, path)
    return reader(path, field)


def save_gaussians(
    gaussians: Gaussians, path: Path, *, metadata: Mapping[str, Any] | None = None, field: str = "FILE"
) -> None:
    """Write Gaussians of our world into the format of the suffix, atomically.

    `metadata` (values that JSON can hold) goes into the file where the format can hold it, and into a JSON beside it.
    Errors: InputError for another suffix, no Gaussians, NaN or inf, or a package that is missing.
    """
    path = Path(path)
    writer = _WRITERS.get(splat_suffix(path))
    if writer is None:
        raise InputError(field, f"a name that ends in {', '.join(WRITABLE)}", path)
    writer(gaussians, path, metadata, field)
    if metadata:
        write_sidecar(path, metadata)
