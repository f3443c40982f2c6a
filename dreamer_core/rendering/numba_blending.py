"""Alpha blending of tiles and its gradient: numba kernels written so that LLVM vectorises them.

What makes the inner loops vector code: they run Gaussian by Gaussian over pixels; all per-pixel values of a tile
lie in one flat buffer at constant offsets (no alias checks) with unsigned indices (no wrap-around); exp is a
polynomial; conditions are `&` and `_select`, not branches, from which LLVM makes masked stores, whose results the
next Gaussian has to wait for; fastmath allows reassociation but not nnan/ninf.

A tile is 16 x 16 pixels, stored as two halves of 8 columns and visited in blocks of 8 x 2 pixels, one vector of
16 lanes: a small Gaussian costs little without more tiles to sort, and no loop has a remainder. Gradients go to
one slot per (Gaussian, tile), summed afterwards in a fixed order: no atomics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from .numba_prefetch import prefetch

FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
TILE = 16
COLUMNS = 8
HALF_TILE = TILE * COLUMNS
LANES = np.uint64(16)
BLOCKS = 8
"""Blocks of 8 x 2 pixels per half tile."""
MERGE = 5
"""From this many blocks per half on, one run through both halves is cheaper than two, blocks in between included."""
PIXELS = TILE * TILE
PLANES = 8
"""Per-pixel values. Forward: transmittance (negative once finished), last, x, y, 3 colours, depth; backward:
transmittance, rest of the image behind, last, x, y and 3 + 1 gradients need one more."""
SCRATCH = (PLANES + 1) * PIXELS
SLOT = 15
"""Where in a record, taken as int32, its gradient slot stands; see numba_binning."""
AHEAD = 8
"""Entries by which records are fetched in advance: a tile's records lie scattered over more than the cache holds."""
GRADIENTS = 9
"""Gradients in a slot: x, y, conic xx, xy, yy, opacity, red, green, blue; then depth if asked."""

U = np.uint64
P1, P2, P3, P4, P5, P6, P7, P8 = (U(PIXELS * i) for i in range(1, 9))
F0, F1, HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
SIDE = np.float32(TILE)
ALPHA_MAX = np.float32(0.999)
TRANSMITTANCE_MIN = np.float32(1e-4)
EXPONENT_MAX = np.float32(6.0)
EIGHTH = np.float32(0.125)


def _exponential_coefficients() -> tuple[np.float32, ...]:
    """Polynomial of degree 6 for exp(-x) on [0, 0.75], interpolated at Chebyshev nodes."""
    x = (np.cos(np.pi * (np.arange(400) + 0.5) / 400) + 1) * 0.375
    fit = np.polynomial.Chebyshev.fit(x, np.exp(-x), 6, domain=[0, 0.75])
    return tuple(np.float32(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef)


E0, E1, E2, E3, E4, E5, E6 = _exponential_coefficients()


@intrinsic
def _select(typing_context: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes if condition else no` as one instruction: both are evaluated."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return yes(types.boolean, yes, yes), generate


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def _exp_minus(s: Any) -> Any:
    """exp(-s) for 0 <= s <= 6, as the 8th power of exp(-s / 8); relative error below 1e-6."""
    x = s * EIGHTH
    p = (((((E6 * x + E5) * x + E4) * x + E3) * x + E2) * x + E1) * x + E0
    p = p * p
    p = p * p
    return p * p


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def _within(position: Any, corner: Any) -> Any:
    """A pixel row or column of the image as one of the tile, kept within it."""
    return int(min(max(position - corner, F0), SIDE))


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def _runs(x0: Any, x1: Any, y0: Any, y1: Any) -> Any:
    """First and last + 1 block of the first run over a tile, and the number of runs, BLOCKS apart."""
    left, right = x0 // COLUMNS, (x1 - 1) // COLUMNS
    first, last = left * BLOCKS + y0 // 2, left * BLOCKS + (y1 + 1) // 2
    if left < right and last - first >= MERGE:
        return first, last + BLOCKS, 1
    return first, last, right - left + 1


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _prepare(buffer: Any, xs: Any, ys: Any) -> None:
    """Pixel centres relative to the tile's corner, into the planes that start at `xs` and `ys`."""
    for p in range(PIXELS):
        half, rest = p // HALF_TILE, p % HALF_TILE
        buffer[xs + p] = np.float32(half * COLUMNS + rest % COLUMNS) + HALF
        buffer[ys + p] = np.float32(rest // COLUMNS) + HALF


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _blend(records: Any, ids: Any, start: Any, end: Any, left: Any, top: Any, buffer: Any, depths: Any) -> None:
    """Blend records ids[start:end] into the tile at (left, top); with `depths` of rank 3 also their depth."""
    with_depth = depths.ndim == 3
    for k in range(start, end):
        g = ids[k]
        prefetch(records, ids[min(k + AHEAD, end - 1)])
        mx, my = records[g, 0] - left, records[g, 1] - top
        ha, cb, hc = records[g, 2], records[g, 3], records[g, 4]
        o, limit = records[g, 5], records[g, 6]
        x0, x1 = _within(records[g, 11], left), _within(records[g, 12], left)
        y0, y1 = _within(records[g, 13], top), _within(records[g, 14], top)
        if y1 > y0 and x1 > x0:
            red, green, blue, z = records[g, 7], records[g, 8], records[g, 9], records[g, 10]
            number = np.float32(k - start + 1)
            first, last, runs = _runs(x0, x1, y0, y1)
            for run in range(runs):
                for p in range(LANES * U(run * BLOCKS + first), LANES * U(run * BLOCKS + last)):
                    dx, dy = mx - buffer[p + P2], my - buffer[p + P3]
                    s = ha * dx * dx + hc * dy * dy + cb * dx * dy
                    alpha = min(ALPHA_MAX, o * _exp_minus(min(max(s, F0), EXPONENT_MAX)))
                    T = buffer[p]
                    weight = T * alpha
                    hit = (s <= limit) & (s >= F0) & (T > F0)
                    enough = T - weight > TRANSMITTANCE_MIN
                    weight = _select(hit & enough, weight, F0)
                    # A finished pixel keeps its transmittance, with a minus sign. Products and maxima, because LLVM
                    # makes a masked store of a selection between something new and what was there.
                    buffer[p] = (T - weight) * _select(hit & (not enough), -F1, F1)
                    buffer[p + P1] = max(buffer[p + P1], _select(weight > F0, number, F0))
                    buffer[p + P4] += weight * red
                    buffer[p + P5] += weight * green
                    buffer[p + P6] += weight * blue
                    if with_depth:
                        buffer[p + P7] += weight * z
        if (k - start) & 31 == 31:
            brightest = F0
            for p in range(U(0), U(PIXELS)):
                brightest = max(brightest, buffer[p])
            if brightest <= F0:
                break


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _forward_tile(
    bin: Any,
    columns: Any,
    rows: Any,
    records: Any,
    ids: Any,
    starts: Any,
    backgrounds: Any,
    images: Any,
    transmittances: Any,
    lasts: Any,
    depths: Any,
    buffer: Any,
) -> None:
    view, tile = bin // (columns * rows), bin % (columns * rows)
    left, top = tile % columns * TILE, tile // columns * TILE
    for p in range(PIXELS):
        buffer[p] = F1
        buffer[PIXELS + p] = F0
        for c in range(4, 8):
            buffer[c * PIXELS + p] = F0
    _blend(records, ids, starts[bin], starts[bin + 1], np.float32(left), np.float32(top), buffer, depths)
    b0, b1, b2 = backgrounds[view, 0], backgrounds[view, 1], backgrounds[view, 2]
    for y in range(min(TILE, images.shape[1] - top)):
        for x in range(min(TILE, images.shape[2] - left)):
            p = x // COLUMNS * HALF_TILE + y * COLUMNS + x % COLUMNS
            T = abs(buffer[p])
            images[view, top + y, left + x, 0] = buffer[4 * PIXELS + p] + T * b0
            images[view, top + y, left + x, 1] = buffer[5 * PIXELS + p] + T * b1
            images[view, top + y, left + x, 2] = buffer[6 * PIXELS + p] + T * b2
            transmittances[view, top + y, left + x] = T
            lasts[view, top + y, left + x] = np.int32(buffer[PIXELS + p])
            if depths.ndim == 3:
                depths[view, top + y, left + x] = buffer[7 * PIXELS + p]


@njit(parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def forward(
    columns: Any,
    rows: Any,
    records: Any,  # [R, RECORD]
    ids: Any,  # [M]
    starts: Any,  # [bins + 1]
    backgrounds: Any,  # [C, 3]
    images: Any,  # [C, H, W, 3] out
    transmittances: Any,  # [C, H, W] out
    lasts: Any,  # [C, H, W] int32 out: number of list entries up to the last one drawn
    depths: Any,  # [C, H, W] out, or rank 1 for none
    scratch: Any,  # [workers, SCRATCH]
) -> None:
    workers = scratch.shape[0]
    for w in prange(workers):
        buffer = scratch[w]
        _prepare(buffer, 2 * PIXELS, 3 * PIXELS)
        # In turns: neighbouring tiles share records in the cache and hold about the same work.
        for bin in range(w, starts.shape[0] - 1, workers):
            _forward_tile(
                bin,
                columns,
                rows,
                records,
                ids,
                starts,
                backgrounds,
                images,
                transmittances,
                lasts,
                depths,
                buffer,
            )


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def _slot(records: Any, tags: Any, g: Any, column: Any, row: Any) -> Any:
    """The gradient slot of record g in tile (column, row)."""
    width = (int(records[g, 12]) - 1) // TILE - int(records[g, 11]) // TILE + 1
    return tags[g, SLOT] + row * width + column


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _unblend(
    records: Any,
    ids: Any,
    start: Any,
    count: Any,
    left: Any,
    top: Any,
    tags: Any,
    column: Any,
    row: Any,
    buffer: Any,
    v_depths: Any,
    gradients: Any,
) -> None:
    """Gradients of the first `count` entries of a tile, last to first."""
    with_depth = v_depths.ndim == 3
    for k in range(count - 1, -1, -1):
        g = ids[start + k]
        prefetch(records, ids[start + max(k - 2 * AHEAD, 0)])
        prefetch(gradients, _slot(records, tags, ids[start + max(k - AHEAD, 0)], column, row))
        mx, my = records[g, 0] - left, records[g, 1] - top
        ha, cb, hc = records[g, 2], records[g, 3], records[g, 4]
        ca, cc = ha + ha, hc + hc
        o, limit = records[g, 5], records[g, 6]
        x0, x1 = _within(records[g, 11], left), _within(records[g, 12], left)
        y0, y1 = _within(records[g, 13], top), _within(records[g, 14], top)
        y1 = max(y0, y1)
        red, green, blue, z = records[g, 7], records[g, 8], records[g, 9], records[g, 10]
        number = np.float32(k + 1)
        r0, r1, r2, r3 = F0, F0, F0, F0
        sx, sy, sxx, sxy, syy, so = F0, F0, F0, F0, F0, F0
        first, last, runs = _runs(x0, x1, y0, y1)
        for run in range(runs):
            for p in range(LANES * U(run * BLOCKS + first), LANES * U(run * BLOCKS + last)):
                dx, dy = mx - buffer[p + P3], my - buffer[p + P4]
                s = ha * dx * dx + hc * dy * dy + cb * dx * dy
                e = _exp_minus(min(max(s, F0), EXPONENT_MAX))
                oe = o * e
                drawn = (s <= limit) & (s >= F0) & (number <= buffer[p + P2])
                alpha = _select(drawn, min(ALPHA_MAX, oe), F0)
                inverse = F1 / (F1 - alpha)
                T = buffer[p] * inverse
                buffer[p] = T
                weight = alpha * T
                v0, v1, v2 = buffer[p + P5], buffer[p + P6], buffer[p + P7]
                along = red * v0 + green * v1 + blue * v2
                r0 += weight * v0
                r1 += weight * v1
                r2 += weight * v2
                if with_depth:
                    v3 = buffer[p + P8]
                    along += z * v3
                    r3 += weight * v3
                behind = buffer[p + P1]
                buffer[p + P1] = behind - weight * along
                va = T * along + inverse * behind
                va = _select(drawn & (oe <= ALPHA_MAX), va, F0)
                va = e * va
                so += va
                vx, vy = va * dx, va * dy
                sx += vx
                sy += vy
                sxx += vx * dx
                sxy += vx * dy
                syy += vy * dy
        q = _slot(records, tags, g, column, row)
        # d alpha / d exponent = -alpha: one factor for all sums.
        gradients[q, 0], gradients[q, 1] = -o * (ca * sx + cb * sy), -o * (cb * sx + cc * sy)
        gradients[q, 2], gradients[q, 3], gradients[q, 4] = -o * HALF * sxx, -o * sxy, -o * HALF * syy
        gradients[q, 5] = so
        gradients[q, 6], gradients[q, 7], gradients[q, 8] = r0, r1, r2
        if with_depth:
            gradients[q, GRADIENTS] = r3


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _backward_tile(
    bin: Any,
    columns: Any,
    rows: Any,
    records: Any,
    ids: Any,
    starts: Any,
    tags: Any,
    backgrounds: Any,
    transmittances: Any,
    lasts: Any,
    v_images: Any,
    v_alphas: Any,
    v_depths: Any,
    gradients: Any,
    buffer: Any,
) -> None:
    view, tile = bin // (columns * rows), bin % (columns * rows)
    column, row = tile % columns, tile // columns
    left, top = column * TILE, row * TILE
    b0, b1, b2 = backgrounds[view, 0], backgrounds[view, 1], backgrounds[view, 2]
    for p in range(PIXELS):
        buffer[p] = F1
        for c in (1, 2, 5, 6, 7, 8):
            buffer[c * PIXELS + p] = F0
    count = 0
    for y in range(min(TILE, transmittances.shape[1] - top)):
        for x in range(min(TILE, transmittances.shape[2] - left)):
            p = x // COLUMNS * HALF_TILE + y * COLUMNS + x % COLUMNS
            T = transmittances[view, top + y, left + x]
            v0 = v_images[view, top + y, left + x, 0]
            v1 = v_images[view, top + y, left + x, 1]
            v2 = v_images[view, top + y, left + x, 2]
            last = lasts[view, top + y, left + x]
            buffer[p] = T
            # What an entry's alpha takes away from everything behind it, times (1 - alpha).
            buffer[PIXELS + p] = T * (v_alphas[view, top + y, left + x] - (b0 * v0 + b1 * v1 + b2 * v2))
            buffer[2 * PIXELS + p] = np.float32(last)
            buffer[5 * PIXELS + p], buffer[6 * PIXELS + p], buffer[7 * PIXELS + p] = v0, v1, v2
            if v_depths.ndim == 3:
                buffer[8 * PIXELS + p] = v_depths[view, top + y, left + x]
            count = max(count, last)
    start, end = starts[bin], starts[bin + 1]
    for k in range(start + count, end):
        g = ids[k]
        q = _slot(records, tags, g, column, row)
        for c in range(gradients.shape[1]):
            gradients[q, c] = F0
    _unblend(
        records, ids, start, count, np.float32(left), np.float32(top), tags, column, row, buffer, v_depths, gradients
    )  # fmt: skip


@njit(parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def backward(
    columns: Any,
    rows: Any,
    records: Any,  # [R, RECORD]
    ids: Any,  # [M]
    starts: Any,  # [bins + 1]
    tags: Any,  # [R, RECORD]: the records as int32
    backgrounds: Any,  # [C, 3]
    transmittances: Any,  # [C, H, W]
    lasts: Any,  # [C, H, W]
    v_images: Any,  # [C, H, W, 3]
    v_alphas: Any,  # [C, H, W]
    v_depths: Any,  # [C, H, W], or rank 1 for none
    gradients: Any,  # [M, 9 or 10] out
    scratch: Any,  # [workers, SCRATCH]
) -> None:
    workers = scratch.shape[0]
    for w in prange(workers):
        buffer = scratch[w]
        _prepare(buffer, 3 * PIXELS, 4 * PIXELS)
        # In turns: neighbouring tiles share records in the cache and hold about the same work.
        for bin in range(w, starts.shape[0] - 1, workers):
            _backward_tile(
                bin, columns, rows, records, ids, starts, tags, backgrounds, transmittances, lasts,
                v_images, v_alphas, v_depths, gradients, buffer,
            )  # fmt: skip


@njit(parallel=True, cache=True, nogil=True)
def sum_slots(
    order: Any,  # [R] index into the flattened [C, N]
    slots: Any,  # [R + 1]
    gradients: Any,  # [M, 9 or 10]
    v_means2d: Any,  # [C * N, 2] out, zero on entry like all that follow
    v_conics: Any,  # [C * N, 3] out
    v_opacities: Any,  # [C * N] out
    v_colors: Any,  # [C * N, 3] out
    v_depths: Any,  # [C * N] out, or empty
) -> None:
    for r in prange(order.shape[0]):
        flat = order[r]
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = F0, F0, F0, F0, F0, F0, F0, F0, F0
        z = F0
        for q in range(slots[r], slots[r + 1]):
            a0 += gradients[q, 0]
            a1 += gradients[q, 1]
            a2 += gradients[q, 2]
            a3 += gradients[q, 3]
            a4 += gradients[q, 4]
            a5 += gradients[q, 5]
            a6 += gradients[q, 6]
            a7 += gradients[q, 7]
            a8 += gradients[q, 8]
            if v_depths.shape[0] > 0:
                z += gradients[q, GRADIENTS]
        v_means2d[flat, 0], v_means2d[flat, 1] = a0, a1
        v_conics[flat, 0], v_conics[flat, 1], v_conics[flat, 2] = a2, a3, a4
        v_opacities[flat] = a5
        v_colors[flat, 0], v_colors[flat, 1], v_colors[flat, 2] = a6, a7, a8
        if v_depths.shape[0] > 0:
            v_depths[flat] = z
