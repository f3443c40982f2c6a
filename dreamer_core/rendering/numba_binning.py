"""Depth order and tile lists of all views at once: numba kernels.

One radix sort orders what any view draws by depth, one counting sort deals it out to (view, tile) bins. Both
are stable, so every bin ends up nearest first with ties in index order, whatever the number of workers. Each
worker takes one contiguous part and has its own histogram: no atomics.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

from .numba_prefetch import prefetch

TILE = 16
DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS
RECORD = 16
"""Floats per record, one cache line: x, y, conic xx / 2, xy, yy / 2, opacity, largest exponent, red, green, blue,
depth, first and last + 1 pixel column, first and last + 1 pixel row, and as an int32 the number of the gradient slot
that tile (0, 0) would have: tile (column, row) has the one `row * width of the box + column` further on."""
SLOT = 15
"""Where in a record, taken as int32, the slot stands."""

AHEAD = 16
"""Gaussians by which `pack_records` fetches in advance: depth order scatters them over the memory."""
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
F0, F2 = np.float32(0.0), np.float32(2.0)
HALF = np.float32(0.5)
SLACK = np.float32(1e-3)
"""Pixels by which bounds are widened, so that rounding never drops a contribution."""


@njit(parallel=True, cache=True, nogil=True)
def sort_keys(keys: Any, values: Any, bits: Any, workers: Any) -> Any:  # uint32 [R], int32 [R] -> int32 [R]
    """Values in the order of their keys (below 2^bits): least significant digit radix sort, stable."""
    n = keys.shape[0]
    other_keys, other_values = np.empty_like(keys), np.empty_like(values)
    counts = np.empty((workers, DIGITS), np.int64)
    passes = (bits + DIGIT_BITS - 1) // DIGIT_BITS
    for sweep in range(passes):
        shift = np.uint32(sweep * DIGIT_BITS)
        for w in prange(workers):
            for digit in range(DIGITS):
                counts[w, digit] = 0
            for i in range(n * w // workers, n * (w + 1) // workers):
                counts[w, (keys[i] >> shift) & np.uint32(DIGITS - 1)] += 1
        total = 0
        for digit in range(DIGITS):
            for w in range(workers):
                count = counts[w, digit]
                counts[w, digit] = total
                total += count
        for w in prange(workers):
            for i in range(n * w // workers, n * (w + 1) // workers):
                digit = (keys[i] >> shift) & np.uint32(DIGITS - 1)
                place = counts[w, digit]
                counts[w, digit] = place + 1
                other_keys[place] = keys[i]
                other_values[place] = values[i]
        keys, other_keys = other_keys, keys
        values, other_values = other_values, values
    return values


@njit(parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def pack_records(
    order: Any,  # [R] int32 index into the flattened [C, N], nearest first
    means2d: Any,  # [C * N, 2]
    conics: Any,  # [C * N, 3]
    depths: Any,  # [C * N]
    opacities: Any,  # [N]
    colors: Any,  # [N, 3] or [C * N, 3]
    width: Any,
    height: Any,
    records: Any,  # [R, RECORD] out
    boxes: Any,  # [R, 4] int32 out: first and last + 1 tile column, first and last + 1 tile row
) -> None:
    """One cache line per drawn Gaussian, in depth order, and the tiles it can reach."""
    n, m = opacities.shape[0], colors.shape[0]
    for r in prange(order.shape[0]):
        flat = order[r]
        ahead = order[min(r + AHEAD, order.shape[0] - 1)]
        prefetch(means2d, ahead)
        prefetch(conics, ahead)
        prefetch(depths, ahead)
        prefetch(opacities, ahead % n)
        prefetch(colors, ahead % m)
        g = flat % n
        x, y = means2d[flat, 0], means2d[flat, 1]
        a, b, c = conics[flat, 0], conics[flat, 1], conics[flat, 2]
        limit = math.log(np.float32(255.0) * opacities[g])
        scale = F2 * limit / (a * c - b * b)
        rx, ry = math.sqrt(max(scale * c, F0)) + SLACK, math.sqrt(max(scale * a, F0)) + SLACK
        records[r, 0], records[r, 1] = x, y
        records[r, 2], records[r, 3], records[r, 4] = HALF * a, b, HALF * c
        records[r, 5], records[r, 6] = opacities[g], limit
        k = flat % m
        records[r, 7], records[r, 8], records[r, 9] = colors[k, 0], colors[k, 1], colors[k, 2]
        records[r, 10] = depths[flat]
        # Columns and rows whose pixel centres lie within the half widths.
        x0, x1 = max(math.ceil(x - rx - HALF), 0), min(math.floor(x + rx - HALF), width - 1)
        y0, y1 = max(math.ceil(y - ry - HALF), 0), min(math.floor(y + ry - HALF), height - 1)
        records[r, 11], records[r, 12] = np.float32(x0), np.float32(x1 + 1)
        records[r, 13], records[r, 14] = np.float32(y0), np.float32(y1 + 1)
        if x1 < x0 or y1 < y0:
            boxes[r, 0] = boxes[r, 1] = boxes[r, 2] = boxes[r, 3] = 0
        else:
            boxes[r, 0], boxes[r, 1] = int(x0) // TILE, int(x1) // TILE + 1
            boxes[r, 2], boxes[r, 3] = int(y0) // TILE, int(y1) // TILE + 1


@njit(parallel=True, cache=True, nogil=True)
def count_tiles(order: Any, boxes: Any, n: Any, columns: Any, rows: Any, counts: Any) -> None:
    """Entries per (worker, bin) into `counts` [workers, C * rows * columns] int32."""
    workers = counts.shape[0]
    total = order.shape[0]
    for w in prange(workers):
        for b in range(counts.shape[1]):
            counts[w, b] = 0
        for r in range(total * w // workers, total * (w + 1) // workers):
            base = order[r] // n * rows * columns
            for y in range(boxes[r, 2], boxes[r, 3]):
                for x in range(boxes[r, 0], boxes[r, 1]):
                    counts[w, base + y * columns + x] += 1


@njit(cache=True, nogil=True)
def accumulate(boxes: Any, counts: Any, starts: Any, slots: Any, tags: Any) -> Any:
    """First positions of bins (`starts` [bins + 1]), (worker, bin) pairs (`counts`), records (`slots` [R + 1]).

    `tags` [R, RECORD] are the records as int32.
    """
    total = 0
    for b in range(counts.shape[1]):
        starts[b] = total
        for w in range(counts.shape[0]):
            count = counts[w, b]
            counts[w, b] = total
            total += count
    starts[counts.shape[1]] = total
    slot = 0
    for r in range(boxes.shape[0]):
        slots[r] = slot
        width = boxes[r, 1] - boxes[r, 0]
        tags[r, SLOT] = slot - boxes[r, 2] * width - boxes[r, 0]
        slot += width * (boxes[r, 3] - boxes[r, 2])
    slots[boxes.shape[0]] = slot
    return total


@njit(parallel=True, cache=True, nogil=True)
def fill_tiles(order: Any, boxes: Any, n: Any, columns: Any, rows: Any, cursors: Any, ids: Any) -> None:
    """Record numbers into `ids` [M] int32, bin after bin, nearest first; `cursors` come from `accumulate`."""
    workers = cursors.shape[0]
    total = order.shape[0]
    for w in prange(workers):
        for r in range(total * w // workers, total * (w + 1) // workers):
            base = order[r] // n * rows * columns
            for y in range(boxes[r, 2], boxes[r, 3]):
                for x in range(boxes[r, 0], boxes[r, 1]):
                    b = base + y * columns + x
                    ids[cursors[w, b]] = r
                    cursors[w, b] += 1
