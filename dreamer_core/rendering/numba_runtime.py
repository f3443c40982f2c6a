"""Bringing numba up without surprises: guarded import, a writable cache, one kernel at a time."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

KERNELS = threading.RLock()
"""Held while kernels run: numba's `workqueue` threading layer aborts the process on concurrent use."""

_PACKAGE = Path(__file__).resolve().parent


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _places(package: Path) -> Iterator[Path]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen)
        return
    yield package / "__pycache__"
    from platformdirs import user_cache_path  # here, so that an update without its new requirement still renders

    yield user_cache_path("dreamer-xl", appauthor=False, opinion=False)


def cache_folder(package: Path = _PACKAGE, name: str = __name__) -> Path:
    """Where compiled kernels are kept: NUMBA_CACHE_DIR, beside the source, or the user's cache if that is read-only.

    numba stores the module's name in what it caches, and ComfyUI imports this package under another name than the
    command line does, so each name has its own folder: either would fail on the other's files.
    """
    leaf = f"numba-{hashlib.sha1(name.encode()).hexdigest()[:8]}"
    for base in _places(package):
        if _writable(base / leaf):
            return base / leaf
    return _own_temporary_folder() / leaf


@cache
def _own_temporary_folder() -> Path:
    """A new folder that only this user can write: numba unpickles what it finds in its cache."""
    return Path(tempfile.mkdtemp(prefix="dreamer-xl-"))


def start_threads() -> None:
    """Start numba's threads and leave torch's number of threads as it is.

    numba's OpenMP layer sets the number of threads of the OpenMP runtime when it starts, and torch shares that
    runtime: all that torch did afterwards would run on as many threads as numba has.
    """
    import numba
    import torch

    threads = torch.get_num_threads()
    numba.get_num_threads()
    torch.set_num_threads(threads)


@contextmanager
def one_kernel_thread() -> Iterator[None]:
    """Kernels that this thread calls run on one thread: the same result, and no waiting for others on a busy machine.

    Where numba has not been imported there is nothing to do.
    """
    numba = sys.modules.get("numba")
    if numba is None:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def import_kernels() -> None:
    """Import the kernel modules with numba's cache in their own folder. Raises what numba raises."""
    import numba

    with KERNELS:
        start_threads()
        before = numba.config.CACHE_DIR
        # numba reads the folder when a kernel is decorated, so other packs' kernels keep theirs.
        numba.config.CACHE_DIR = str(cache_folder())
        try:
            from . import numba_binning, numba_blending, numba_projection  # noqa: F401
        finally:
            numba.config.CACHE_DIR = before


def unusable_reason() -> str:
    """Why the numba renderer cannot work here, or an empty string."""
    try:
        import_kernels()
    except Exception as error:  # numba raises ImportError, SystemError and more for an unsupported numpy
        return f"numba cannot be used ({type(error).__name__}: {error})"
    return ""
