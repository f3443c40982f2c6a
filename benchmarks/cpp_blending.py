"""The blending kernels in C++ (cpp/blending.cpp), compiled when first asked for, in the place of numba's."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

SOURCE = Path(__file__).with_name("cpp") / "blending.cpp"
FLAGS = ("-O3", "-march=native", "-fopenmp")
# What numba's kernels are allowed, too: contraction and reordered sums, no signed zeros, no exceptions.
FASTMATH = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math")


def compiler() -> str | None:
    """The C++ compiler of this machine that knows the flags, or None."""
    return shutil.which("g++")


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises RuntimeError where there is no g++ or it fails."""
    from dreamer_core.rendering import numba_blending as kernels

    found = compiler()
    if found is None:
        raise RuntimeError("there is no g++ on this machine")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "blending.so"
        exponential = [f"-DE{i}={float(getattr(kernels, f'E{i}')).hex()}f" for i in range(7)]
        command = [found, *FLAGS, *FASTMATH, *exponential, "-shared", "-fPIC", str(SOURCE), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"g++ failed: {done.stderr.strip()}")
        return ctypes.CDLL(str(target))  # stays loaded when the file is gone


def _pointer(array: np.ndarray, present: bool = True) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data if present else None)


def _common(columns: int, rows: int, shape: Any, records: Any, ids: Any, starts: Any, backgrounds: Any) -> list[Any]:
    views, height, width = shape
    sizes = np.array([views, columns, rows, width, height], np.int32)
    return [sizes, records, ids, starts, backgrounds]


def forward(
    columns: Any, rows: Any, records: Any, ids: Any, starts: Any, backgrounds: Any, images: Any, transmittances: Any,
    lasts: Any, depths: Any, scratch: Any,
) -> None:  # fmt: skip
    """`numba_blending.forward` in C++; same arguments."""
    arrays = _common(columns, rows, transmittances.shape, records, ids, starts, backgrounds)
    arrays += [images, transmittances, lasts]
    library().blend_forward(*map(_pointer, arrays), _pointer(depths, depths.ndim == 3), len(scratch))


def backward(
    columns: Any, rows: Any, records: Any, ids: Any, starts: Any, tags: Any, backgrounds: Any, transmittances: Any,
    lasts: Any, v_images: Any, v_alphas: Any, v_depths: Any, gradients: Any, scratch: Any,
) -> None:  # fmt: skip
    """`numba_blending.backward` in C++; same arguments."""
    arrays = _common(columns, rows, transmittances.shape, records, ids, starts, backgrounds)
    arrays += [transmittances, lasts, v_images, v_alphas]
    depths = _pointer(v_depths, v_depths.ndim == 3)
    library().blend_backward(*map(_pointer, arrays), depths, _pointer(gradients), len(scratch))


@contextmanager
def in_place_of_numba() -> Iterator[None]:
    """The numba renderer with these kernels for blending; projection, binning and the slots' sums stay numba's."""
    from dreamer_core.rendering import numba_blending as kernels

    library()
    with mock.patch.object(kernels, "forward", forward), mock.patch.object(kernels, "backward", backward):
        yield
