"""Bringing numba up without surprises: guarded import, a writable cache, one kernel at a time."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from pathlib import Path

log = logging.getLogger(__name__)

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


def cache_folder(package: Path = _PACKAGE) -> Path | None:
    """Where compiled kernels go if not beside the source or into NUMBA_CACHE_DIR, which is None."""
    if os.environ.get("NUMBA_CACHE_DIR") or _writable(package / "__pycache__"):
        return None
    if sys.platform == "win32":
        user = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        user = str(Path.home() / "Library" / "Caches")
    else:
        user = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for folder in (Path(user) / "dreamer-xl" / "numba", Path(tempfile.gettempdir()) / "dreamer-xl-numba"):
        if _writable(folder):
            return folder
    return None


def import_kernels() -> None:
    """Import the kernel modules with numba's cache in a writable folder. Raises what numba raises."""
    import numba

    folder = cache_folder()
    before = numba.config.CACHE_DIR
    # numba reads the folder when a kernel is decorated, so other packs' kernels keep theirs.
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)
    try:
        from . import numba_binning, numba_blending, numba_projection  # noqa: F401
    finally:
        numba.config.CACHE_DIR = before


def unusable_reason() -> str:
    """Why the numba renderer cannot work here, or an empty string."""
    try:
        with KERNELS:
            import_kernels()
    except Exception as error:  # numba raises ImportError, SystemError and more for an unsupported numpy
        return f"numba cannot be used ({type(error).__name__}: {error})"
    return ""
