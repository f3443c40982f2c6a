"""Splat files by suffix, and what is recorded with them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import fitting_name, write_atomically
from ..gaussians import Gaussians
from .compressed_ply import COMPRESSED_PLY
from .format import Format
from .ply import COMPACT_PLY, PLY
from .splat import SPLAT
from .spz import SPZ

log = logging.getLogger(__name__)

GENERATOR = "Dreamer XL"
"""What a JSON beside a splat says under `generator`, if it is ours: no other is ever replaced."""
OURS = ".dreamer-xl"
SIDECAR_AT_MOST = 64 << 20
"""Bytes of a JSON that is looked at."""

FORMATS: tuple[Format, ...] = (PLY, COMPACT_PLY, COMPRESSED_PLY, SPLAT, SPZ)
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
    """The JSON file beside a splat: mug.spz and mug.compressed.ply share mug.json.

    Where another program has a file of that name (transforms.json, cameras.json), it is mug.dreamer-xl.json.
    """
    stem = path.name[: len(path.name) - len(splat_suffix(path))]
    usual, other = (path.with_name(fitting_name(stem, ending)) for ending in (".json", f"{OURS}.json"))
    return usual if not os.path.lexists(usual) or _read_ours(usual) is not None else other


def own_sidecars(path: Path) -> list[Path]:
    """The JSON files beside a splat that this program wrote."""
    stem = path.name[: len(path.name) - len(splat_suffix(path))]
    both = (path.with_name(fitting_name(stem, ending)) for ending in (".json", f"{OURS}.json"))
    return [file for file in both if _read_ours(file) is not None]


def _read_ours(path: Path) -> dict[str, Any] | None:
    """The content of a JSON that this program wrote; None of any other file."""
    try:
        if path.stat().st_size > SIDECAR_AT_MOST:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == GENERATOR else None


def _write_sidecar(path: Path, metadata: Mapping[str, Any]) -> None:
    text = json.dumps({**metadata, "generator": GENERATOR}, indent=2, default=str) + "\n"
    target = sidecar(path)
    if os.path.lexists(target) and _read_ours(target) is None:
        log.warning("%s is not ours and stays as it is; what belongs to %s is not written", target, path.name)
        return
    if target.name.endswith(f"{OURS}.json"):
        log.warning("another program's JSON beside %s stays as it is; ours is %s", path, target.name)

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(target, write)


def read_metadata(path: Path) -> dict[str, Any]:
    """What was recorded with a splat: from our JSON beside it, and from the file itself, which wins; empty where
    nothing is. The JSON of another program is none of it.
    """
    found: dict[str, Any] = dict(_read_ours(sidecar(path)) or {})
    for f in FORMATS:
        if f.suffix == path.suffix.lower() and f.metadata is not None:
            found.update(f.metadata(path))
    return found
