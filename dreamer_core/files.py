"""Files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAME_AT_MOST = 255
"""Bytes of a file's name on every common file system."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in "0123456789¹²³")}
"""Names of devices on Windows, whatever follows a dot."""
ABANDONED_AFTER = 3600.0
"""Seconds after which a temporary file is nobody's, where its writer cannot be asked."""
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What a disk says when what was written is not on it."""

CLAIM = ".claim"
"""Suffix of a file that keeps a name for one process."""

_HOST = hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()
_TEMPORARY = re.compile(r"\..*\.(?:(?P<host>[0-9a-f]{6})-(?P<pid>[0-9a-f]+)-)?(?P<token>[0-9a-f]{8})\.tmp(\..*)?")
_writing: set[str] = set()
"""Tokens of the temporary files that this process is writing."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path` (same suffix), then rename it; nothing stays on failure.

    The temporary name is new every time, so that programs and threads that write the same file do not meet: the last
    one's file stays. It says who writes, so that `remove_abandoned` finds it when that process was killed. The content
    is on the disk before the name is, so that a power cut leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _marked() as mark:
        temporary = path.with_name(f".{path.stem[:40]}.{mark}.tmp{path.suffix}")
        try:
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path, stem: str) -> Iterator[bool]:
    """Whether files of that stem are this block's alone to write; another process that asks meanwhile gets False."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = hashlib.blake2b(stem.encode(), digest_size=4).hexdigest()  # where the name is cut off
    claim = folder / f".{stem[:40]}.{whole}{CLAIM}"
    with _marked() as mark:
        try:
            with claim.open("x", encoding="ascii") as file:
                file.write(f".{mark}.tmp")
        except FileExistsError:
            yield False
            return
        try:
            yield True
        finally:
            claim.unlink(missing_ok=True)


@contextmanager
def _marked() -> Iterator[str]:
    """A mark that says who writes, for as long as it does."""
    token = secrets.token_hex(4)
    _writing.add(token)
    try:
        yield f"{_HOST}-{os.getpid():x}-{token}"
    finally:
        _writing.discard(token)


def _flush(path: Path) -> None:
    """Wait until the content is on the disk. Errors: OSError where it is not and never will be."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:  # some network file systems cannot
            if error.errno in LOST:
                raise


def remove_abandoned(paths: Iterable[Path]) -> list[Path]:
    """Remove those of the files that belong to a write or a claim of a process that is gone; which they were.

    A file that a living process writes stays. Where the writer cannot be asked (another computer, an earlier version)
    an hour without a change decides.
    """
    removed = []
    for path in paths:
        try:
            named = _TEMPORARY.fullmatch(f".{path.read_text('ascii')}" if path.suffix == CLAIM else path.name)
            if named is not None and path.is_file() and _abandoned(named, path.stat().st_mtime):
                path.unlink()
                removed.append(path)
        except (OSError, ValueError):  # gone meanwhile, or not ours to remove
            continue
    return removed


def _abandoned(named: re.Match[str], changed: float) -> bool:
    if named["host"] != _HOST:
        return abs(time.time() - changed) > ABANDONED_AFTER  # a clock may have been set back
    if int(named["pid"], 16) == os.getpid():
        return named["token"] not in _writing
    import psutil

    try:
        return bool(psutil.Process(int(named["pid"], 16)).create_time() > changed + 1.0)  # another one of that number
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return abs(time.time() - changed) > ABANDONED_AFTER


def fitting_name(stem: str, ending: str) -> str:
    """`stem` and `ending` as one name; where that is too long for a file, a shorter one that is the same every time."""
    room = NAME_AT_MOST - len(ending.encode())
    if len(os.fsencode(stem)) <= room:
        return stem + ending
    mark = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
    kept = os.fsencode(stem)[: room - len(mark)].decode(errors="ignore")
    return kept + mark + ending
