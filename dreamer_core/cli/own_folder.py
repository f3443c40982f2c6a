"""The folder of a run belongs to it alone while it runs."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError
from ..files import RESERVED, remove_abandoned

OUTPUTS = Path("outputs")
LOCK = ".lock"


NAME_AT_MOST = 60
"""Letters of a folder's name; four bytes each stay below what file systems take."""


def folder_name(prompt: str) -> str:
    """The prompt in letters and digits of any script, and hyphens; a name that every system takes."""
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", prompt).lower())
    name = words.strip("-")[:NAME_AT_MOST].strip("-") or "splat"
    return f"{name}-splat" if name in RESERVED else name


def default_folder(prompt: str) -> Path:
    """outputs/<prompt>, numbered where that exists; nothing is made."""
    return next(folder for folder in _candidates(prompt) if not folder.exists())


def make_default_folder(prompt: str) -> Path:
    """Makes outputs/<prompt>, numbered where that exists: no two runs get the same.

    A folder in which a run was killed before it wrote anything is taken again.
    """
    return next(folder for folder in _candidates(prompt) if _made(folder) or _left(folder))


def _candidates(prompt: str) -> Iterator[Path]:
    name = folder_name(prompt)
    yield OUTPUTS / name
    yield from (OUTPUTS / f"{name}-{number}" for number in count(2))


def _made(folder: Path) -> bool:
    """Make it; whether it was not there before."""
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        except FileNotFoundError:  # a run that ended without files has just removed the empty outputs
            continue
        return True


def _left(folder: Path) -> bool:
    """Whether it holds nothing but the lock of a run that is gone."""
    try:
        if os.listdir(folder) != [LOCK]:
            return False
        with FileLock(folder / LOCK, timeout=0):
            return True
    except (OSError, Timeout):
        return False


@contextmanager
def own_folder(out: Path | None, prompt: str) -> Iterator[Path]:
    """The folder `out`, by default outputs/<prompt>, closed to other runs; made here, it goes again if it stays empty.

    Errors: InputError where `out` is a file, or where another run is using it.
    """
    top = OUTPUTS if out is None else out
    made = [path for path in (top, *top.parents) if not path.exists()]
    if out is None:
        folder = make_default_folder(prompt)
        made.insert(0, folder)
    else:
        folder = out
        if folder.exists() and not folder.is_dir():
            raise InputError("--out", "a folder", f"{folder}, which is a file")
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            remove_abandoned(folder.iterdir())
            yield folder
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a lock file in the folder; the system unlocks it when the process ends, however it does."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        remedy = "wait for it, or name another folder"
        raise InputError("--out", "a folder that no other run is using", f"{folder}, which one is", remedy) from error
    try:
        yield
    finally:
        if os.name == "nt":  # where an open file cannot be removed
            lock.release()
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
