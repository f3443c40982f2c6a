"""Triangles of polygons that are not convex."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

AT_MOST = 1_000
"""Corners of a polygon that is cut into ears, whose time grows with their square."""
BLOCK = 250_000
"""Polygons that are looked at together."""
FLAT = 1e-9
"""Share of a polygon's squared area by which one of its triangles may be turned over for rounding alone."""
Integers = NDArray[np.int64]


def mend_fans(path: Path, places: NDArray[np.float64], sizes: Integers, corners: Integers, *others: Integers) -> None:
    """Cut those polygons anew, in place, for which a fan around the first corner leaves the polygon.

    `corners` [F, 3] into `places` [V, 3] begins with fans: polygon p has `sizes` [P] triangles, one after another.
    `others` [F, 3] go with the corners.
    """
    starts, large = np.cumsum(sizes) - sizes, 0
    for first in range(0, len(sizes) if sizes.max(initial=0) > 1 else 0, BLOCK):
        for p in first + _left(places, corners, starts[first : first + BLOCK], sizes[first : first + BLOCK]):
            if sizes[p] + 2 > AT_MOST:
                large += 1
                continue
            mine = slice(starts[p], starts[p] + sizes[p])
            rings = [np.concatenate([rows[mine][0, :2], rows[mine][:, 2]]) for rows in (corners, *others)]
            ring = places[rings[0]]
            cut = np.array(ears(np.delete(ring, np.abs(_area(ring)).argmax(), axis=1)))
            for rows, values in zip((corners, *others), rings, strict=True):
                rows[mine] = values[cut]
    if large:
        log.warning("%s: %s polygons of more than %s corners are cut into fans", path, f"{large:,}", f"{AT_MOST:,}")


def _left(places: NDArray[np.float64], corners: Integers, starts: Integers, sizes: Integers) -> Integers:
    """Which polygons a fan leaves: one of its triangles is turned over."""
    if not sizes.sum():
        return np.zeros(0, np.int64)
    fans = corners[starts[0] : starts[-1] + sizes[-1]]
    a, b, c = (places[fans[:, i]] for i in range(3))
    polygon = np.repeat(np.arange(len(sizes)), sizes)
    with np.errstate(invalid="ignore", over="ignore"):  # places that are no numbers
        normals = np.cross(b - a, c - a)
        whole = np.stack([np.bincount(polygon, normals[:, i], len(sizes)) for i in range(3)], axis=-1)
        turned = (normals * whole[polygon]).sum(-1) < -FLAT * (whole * whole).sum(-1)[polygon]
    return np.unique(polygon[turned])


def _area(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the area of a polygon `ring` [n, 3], as a vector [3]."""
    found: NDArray[np.float64] = np.cross(ring[1:-1] - ring[0], ring[2:] - ring[0]).sum(0)
    return found


def ears(ring: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Corners of n - 2 triangles that fill the polygon `ring` [n, 2], by clipping one ear after another.

    A ring that crosses itself has no such filling; what is left of it without an ear is cut all the same.
    """
    x, y = ring.T
    points = ring if float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) >= 0 else ring * (1.0, -1.0)
    left, triangles = list(range(len(ring))), []
    while len(left) > 3:
        ring_of = [(left[at - 1], left[at], left[(at + 1) % len(left)]) for at in range(len(left))]
        at = next((at for at, ear in enumerate(ring_of) if _is_ear(points, left, ear)), 0)
        triangles.append(ring_of[at])
        del left[at]
    return [*triangles, (left[0], left[1], left[2])]


def _is_ear(points: NDArray[np.float64], left: list[int], ear: tuple[int, int, int]) -> bool:
    """Whether the triangle turns inwards, and no other corner lies in it."""
    a, b, c = points[list(ear)]
    if _side(a, b, c) <= 0:
        return False
    others = points[[i for i in left if i not in ear]]
    apart = ~(others[:, None] == np.stack([a, b, c])).all(-1).any(-1)
    inside = (_side(a, b, others) >= 0) & (_side(b, c, others) >= 0) & (_side(c, a, others) >= 0)
    return not bool((inside & apart).any())


def _side(a: NDArray[np.float64], b: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Above 0 for points [..., 2] to the left of the way from a to b."""
    found: NDArray[np.float64] = (b[0] - a[0]) * (of[..., 1] - a[1]) - (b[1] - a[1]) * (of[..., 0] - a[0])
    return found
