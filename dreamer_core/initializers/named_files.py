"""Files that a model names: looked for in the model's folder and below, nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes


def beside(path: Path, name: str, encoded: bool = False) -> Path | None:
    """The file that a model names; None where it is missing or lies elsewhere.

    Backslashes of Windows count as slashes. A path of another computer is looked for by its last part, and a name in
    another case is found where only one has it. `encoded` names are URIs, percent signs and all.
    """
    folder = Path(os.path.abspath(path)).parent.resolve()
    for candidate in _candidates(name.strip(), encoded):
        try:
            file = (folder / candidate).resolve()
            if candidate and file.is_relative_to(folder) and (file.is_file() or _other_case(file) is not None):
                return file if file.is_file() else _other_case(file)
        except (OSError, ValueError, RuntimeError):  # no name that a file can have
            continue
    return None


def _candidates(name: str, encoded: bool) -> Iterator[str]:
    names = [unquote_to_bytes(name).decode("utf-8", errors="replace"), name] if encoded else [name]
    slashed = [n.replace("\\", "/") for n in names]
    last = [] if encoded else [n.rsplit("/", 1)[-1] for n in slashed]
    yield from dict.fromkeys(n.strip('"') for n in (*names, *slashed, *last))


def _other_case(file: Path) -> Path | None:
    """The only file of that name in other capitals."""
    if not file.parent.is_dir():
        return None
    found = [p for p in file.parent.iterdir() if p.name.casefold() == file.name.casefold() and p.is_file()]
    return found[0] if len(found) == 1 else None
