"""Colours under the names and in the ranges that programs write, as RGB in [0, 1]."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = (
    ("red", "green", "blue"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),  # VCG, CloudCompare
    ("r", "g", "b"),
    ("color_red", "color_green", "color_blue"),
    ("Red", "Green", "Blue"),
    ("R", "G", "B"),
)
"""Of three columns each; the first that are there count."""
FEW = 0.01
"""Share of the numbers."""
ABOVE_ONE = 2.0
"""A largest value above this is not 1 with some glow, but the other convention."""


def color_names(columns: Collection[str]) -> tuple[str, ...]:
    """Which columns hold a colour; none where there is none."""
    return next((names for names in NAMES if all(name in columns for name in names)), ())


def unit_colors(values: Any) -> NDArray[np.float64]:
    """Colours of one array in [0, 1], whatever range they are written in; NaN becomes 0.

    8 bits count up to 255. Wider integers and floats do not say what they count up to: their largest value tells
    [0, 1] from [0, 255] and [0, 65535].
    """
    array = np.asarray(values)
    return np.clip(np.nan_to_num(array.astype(np.float64) / full_scale(array), nan=0.0, posinf=1.0), 0.0, 1.0)


def full_scale(array: NDArray[Any]) -> float:
    """The value that stands for 1."""
    if array.dtype.kind in "iu" and array.dtype.itemsize == 1:
        return 255.0
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    largest = float(finite.max()) if finite.size else 0.0
    if array.dtype.kind == "f" and largest <= ABOVE_ONE:
        return 1.0
    if array.dtype.kind == "f" and _outliers(finite):
        return 1.0
    if largest <= 255.0:
        return 255.0
    if largest <= 65535.0:
        return 65535.0
    return float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else largest


def _outliers(finite: NDArray[Any]) -> bool:
    """Whether so few numbers are above what 1 stands for that they are faults among colours up to 1.

    Colours up to 255 in floats are whole numbers, or mostly above 1.
    """
    above = finite > ABOVE_ONE
    return bool(above.mean() < FEW and (finite[~above] != np.rint(finite[~above])).any())
