"""Splat files by suffix, and what is recorded with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians
from .compressed_ply import COMPRESSED_PLY
from .format import Format
from .ply import PLY
from .splat import SPLAT
from .spz import SPZ

FORMATS: tuple[Format, ...] = (PLY, COMPRESSED_PLY, SPLAT, SPZ)
"""Every format of splat files; a new one is a file beside these and a name here."""

_READERS = {f.suffix: f.read for f in FORMATS if f.read is not None}
_WRITERS = {f.suffix: f.write for f in FORMATS if f.write is not None}

READABLE = tuple(_READERS)
"""Lower-case suffixes of the files that `load_gaussians` reads."""

WRITABLE = tuple(_WRITERS)
"""Lower-case suffixes of the files that `save_gaussians` writes."""


def splat_suffix(path: Path) -> str:
    """The suffix that decides the format, in lower case: ".compressed.ply" counts as one."""
    name = path.name.lower()
    known = [f.suffix for f in FORMATS if path.suffix and name.endswith(f.suffix)]
    return max(known, key=len, default=path.suffix.lower())


def splat_format(path: Path) -> Format | None:
    """The format of a splat that can be read, by its suffix and content; None for any other file. Errors: OSError."""
    ending = path.suffix.lower()
    if ending not in READABLE:
        return None
    sharing = (f for f in FORMATS if f.suffix.endswith(ending))
    return next((f for f in sharing if f.recognise is None or f.recognise(path)), None)


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
        _write_sidecar(path, metadata)


def require_packages(suffix: str, field: str) -> None:
    """Errors: InputError where a package is missing that writing the format of this suffix needs."""
    for f in FORMATS:
        if f.suffix == suffix and f.require is not None:
            f.require(field)


def sidecar(path: Path) -> Path:
    """The JSON file beside a splat: mug.spz and mug.compressed.ply share mug.json."""
    return path.with_name(f"{path.name[: len(path.name) - len(splat_suffix(path))]}.json")


def _write_sidecar(path: Path, metadata: Mapping[str, Any]) -> None:
    text = json.dumps(dict(metadata), indent=2, default=str) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(sidecar(path), write)


def read_metadata(path: Path) -> dict[str, Any]:
    """What was recorded with a splat: from its JSON, and from the file itself, which wins; empty where nothing is.

    A JSON of that name which another program wrote is taken as it is; one that is broken or no object is ignored.
    """
    found: dict[str, Any] = {}
    try:
        beside = json.loads(sidecar(path).read_text(encoding="utf-8"))
        if isinstance(beside, dict):
            found.update(beside)
    except (OSError, ValueError):
        pass
    for f in FORMATS:
        if f.suffix == path.suffix.lower() and f.metadata is not None:
            found.update(f.metadata(path))
    return found
