"""Alpha blending of tiles and its gradient: numba kernels written so that LLVM vectorises them.

What makes the inner loops vector code: they run Gaussian by Gaussian over pixels; all per-pixel values of a tile
lie in one flat buffer at constant offsets (no alias checks) with unsigned indices (no wrap-around); exp is a
polynomial; conditions are `&` and selects, not branches; fastmath allows reassociation but not nnan/ninf.

A tile is 16 x 16 pixels, stored as two halves of 8 columns, so that a small Gaussian costs 8-pixel rows without
more tiles to sort. Gradients go to one slot per (Gaussian, tile), summed afterwards in a fixed order: no atomics.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
TILE = 16
COLUMNS = 8
HALF_TILE = TILE * COLUMNS
PIXELS = TILE * TILE
PLANES = 8
"""Per-pixel values. Forward: transmittance (negative once finished), last, x, y, 3 colours, depth; backward:
transmittance, rest of the image behind, last, x, y and 3 + 1 gradients need one more."""
SCRATCH = (PLANES + 1) * PIXELS
SLOT = 9
"""Gradients per slot: x, y, conic xx, xy, yy, opacity, red, green, blue."""

U = np.uint64
P1, P2, P3, P4, P5, P6, P7, P8 = (U(PIXELS * i) for i in range(1, 9))
F0, F1, HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
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


@njit(inline="always", fastmath=FASTMATH)
def _exp_minus(s: Any) -> Any:
    """exp(-s) for 0 <= s <= 6, as the 8th power of exp(-s / 8); relative error below 1e-6."""
    x = s * EIGHTH
    p = (((((E6 * x + E5) * x + E4) * x + E3) * x + E2) * x + E1) * x + E0
    p = p * p
    p = p * p
    return p * p


@njit(inline="always", fastmath=FASTMATH)
def _reach(center: Any, radius: Any) -> Any:
    """First and last + 1 of the 16 rows or columns whose pixel centres lie within `radius` of `center`."""
    first = math.ceil(center - radius - HALF)
    last = math.floor(center + radius - HALF) + 1
    return min(max(first, 0), TILE), min(max(last, 0), TILE)


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _prepare(buffer: Any, xs: Any, ys: Any) -> None:
    """Pixel centres relative to the tile's corner, into the planes that start at `xs` and `ys`."""
    for p in range(PIXELS):
        half, rest = p // HALF_TILE, p % HALF_TILE
        buffer[xs + p] = np.float32(half * COLUMNS + rest % COLUMNS) + HALF
        buffer[ys + p] = np.float32(rest // COLUMNS) + HALF


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _blend(records: Any, ids: Any, start: Any, end: Any, left: Any, top: Any, buffer: Any, depths: Any) -> None:
    """Blend records ids[start:end] into the tile at (left, top); with `depths` of rank 3 also their depth."""
    with_depth = depths.ndim == 3
    for k in range(start, end):
        g = ids[k]
        mx, my = records[g, 0] - left, records[g, 1] - top
        ha, cb, hc = records[g, 2], records[g, 3], records[g, 4]
        o, limit = records[g, 5], records[g, 6]
        y0, y1 = _reach(my, records[g, 8])
        x0, x1 = _reach(mx, records[g, 7])
        if y1 > y0 and x1 > x0:
            red, green, blue, z = records[g, 9], records[g, 10], records[g, 11], records[g, 12]
            number = np.float32(k - start + 1)
            for half in range(x0 // COLUMNS, (x1 - 1) // COLUMNS + 1):
                for p in range(U(half * HALF_TILE + y0 * COLUMNS), U(half * HALF_TILE + y1 * COLUMNS)):
                    dx, dy = mx - buffer[p + P2], my - buffer[p + P3]
                    s = ha * dx * dx + hc * dy * dy + cb * dx * dy
                    alpha = min(ALPHA_MAX, o * _exp_minus(min(max(s, F0), EXPONENT_MAX)))
                    T = buffer[p]
                    after = T - T * alpha
                    hit = (s <= limit) & (s >= F0) & (T > F0)
                    drawn = hit & (after > TRANSMITTANCE_MIN)
                    # A finished pixel keeps its transmittance with a minus sign.
                    stopped = -T if hit else T
                    buffer[p] = after if drawn else stopped
                    buffer[p + P1] = number if drawn else buffer[p + P1]
                    weight = T * alpha if drawn else F0
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


@njit(fastmath=FASTMATH, cache=True, nogil=True)
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


@njit(parallel=True, fastmath=FASTMATH, cache=True, nogil=True)
def forward(
    schedule: Any,  # [bins] int64: the order in which the workers take bins
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
        for j in range(w, schedule.shape[0], workers):
            _forward_tile(
                schedule[j],
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


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _unblend(
    records: Any,
    ids: Any,
    start: Any,
    count: Any,
    left: Any,
    top: Any,
    boxes: Any,
    slots: Any,
    column: Any,
    row: Any,
    buffer: Any,
    v_depths: Any,
    gradients: Any,
    depth_gradients: Any,
    absolute: Any,
) -> None:
    """Gradients of the first `count` entries of a tile, last to first."""
    with_depth = v_depths.ndim == 3
    with_absolute = absolute.ndim == 2
    for k in range(count - 1, -1, -1):
        g = ids[start + k]
        mx, my = records[g, 0] - left, records[g, 1] - top
        ha, cb, hc = records[g, 2], records[g, 3], records[g, 4]
        ca, cc = ha + ha, hc + hc
        o, limit = records[g, 5], records[g, 6]
        y0, y1 = _reach(my, records[g, 8])
        x0, x1 = _reach(mx, records[g, 7])
        y1 = max(y0, y1)
        red, green, blue, z = records[g, 9], records[g, 10], records[g, 11], records[g, 12]
        number = np.float32(k + 1)
        r0, r1, r2, r3 = F0, F0, F0, F0
        sx, sy, sxx, sxy, syy, so, ax, ay = F0, F0, F0, F0, F0, F0, F0, F0
        for half in range(x0 // COLUMNS, (x1 - 1) // COLUMNS + 1):
            for p in range(U(half * HALF_TILE + y0 * COLUMNS), U(half * HALF_TILE + y1 * COLUMNS)):
                dx, dy = mx - buffer[p + P3], my - buffer[p + P4]
                s = ha * dx * dx + hc * dy * dy + cb * dx * dy
                e = _exp_minus(min(max(s, F0), EXPONENT_MAX))
                oe = o * e
                drawn = (s <= limit) & (s >= F0) & (number <= buffer[p + P2])
                alpha = min(ALPHA_MAX, oe) if drawn else F0
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
                va = va if (drawn & (oe <= ALPHA_MAX)) else F0
                so += e * va
                vs = -oe * va
                vx, vy = vs * dx, vs * dy
                sx += vx
                sy += vy
                sxx += vx * dx
                sxy += vx * dy
                syy += vy * dy
                if with_absolute:
                    ax += abs(ca * vx + cb * vy)
                    ay += abs(cb * vx + cc * vy)
        q = slots[g] + (row - boxes[g, 2]) * (boxes[g, 1] - boxes[g, 0]) + column - boxes[g, 0]
        gradients[q, 0], gradients[q, 1] = ca * sx + cb * sy, cb * sx + cc * sy
        gradients[q, 2], gradients[q, 3], gradients[q, 4] = HALF * sxx, sxy, HALF * syy
        gradients[q, 5] = so
        gradients[q, 6], gradients[q, 7], gradients[q, 8] = r0, r1, r2
        if depth_gradients.shape[0] > 0:
            depth_gradients[q] = r3
        if absolute.ndim == 2:
            absolute[q, 0], absolute[q, 1] = ax, ay


@njit(fastmath=FASTMATH, cache=True, nogil=True)
def _backward_tile(
    bin: Any,
    columns: Any,
    rows: Any,
    records: Any,
    ids: Any,
    starts: Any,
    boxes: Any,
    slots: Any,
    backgrounds: Any,
    transmittances: Any,
    lasts: Any,
    v_images: Any,
    v_alphas: Any,
    v_depths: Any,
    gradients: Any,
    depth_gradients: Any,
    absolute: Any,
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
        q = slots[g] + (row - boxes[g, 2]) * (boxes[g, 1] - boxes[g, 0]) + column - boxes[g, 0]
        for c in range(SLOT):
            gradients[q, c] = F0
        if depth_gradients.shape[0] > 0:
            depth_gradients[q] = F0
        if absolute.ndim == 2:
            absolute[q, 0] = absolute[q, 1] = F0
    _unblend(
        records, ids, start, count, np.float32(left), np.float32(top), boxes, slots, column, row, buffer, v_depths,
        gradients, depth_gradients, absolute,
    )  # fmt: skip


@njit(parallel=True, fastmath=FASTMATH, cache=True, nogil=True)
def backward(
    schedule: Any,  # [bins]
    columns: Any,
    rows: Any,
    records: Any,  # [R, RECORD]
    ids: Any,  # [M]
    starts: Any,  # [bins + 1]
    boxes: Any,  # [R, 4]
    slots: Any,  # [R + 1]
    backgrounds: Any,  # [C, 3]
    transmittances: Any,  # [C, H, W]
    lasts: Any,  # [C, H, W]
    v_images: Any,  # [C, H, W, 3]
    v_alphas: Any,  # [C, H, W]
    v_depths: Any,  # [C, H, W], or rank 1 for none
    gradients: Any,  # [M, SLOT] out
    depth_gradients: Any,  # [M] out, or empty
    absolute: Any,  # [M, 2] out, or rank 1 for none
    scratch: Any,  # [workers, SCRATCH]
) -> None:
    workers = scratch.shape[0]
    for w in prange(workers):
        buffer = scratch[w]
        _prepare(buffer, 3 * PIXELS, 4 * PIXELS)
        for j in range(w, schedule.shape[0], workers):
            _backward_tile(
                schedule[j], columns, rows, records, ids, starts, boxes, slots, backgrounds, transmittances, lasts,
                v_images, v_alphas, v_depths, gradients, depth_gradients, absolute, buffer,
            )  # fmt: skip


@njit(parallel=True, cache=True, nogil=True)
def sum_slots(
    order: Any,  # [R] index into the flattened [C, N]
    slots: Any,  # [R + 1]
    gradients: Any,  # [M, SLOT]
    depth_gradients: Any,  # [M], or empty
    absolute: Any,  # [M, 2], or rank 1 for none
    v_means2d: Any,  # [C * N, 2] out, zero on entry like all that follow
    v_conics: Any,  # [C * N, 3] out
    v_opacities: Any,  # [C * N] out
    v_colors: Any,  # [C * N, 3] out
    v_depths: Any,  # [C * N] out, or empty
    v_absolute: Any,  # [C * N, 2] out, or rank 1 for none
) -> None:
    for r in prange(order.shape[0]):
        flat = order[r]
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = F0, F0, F0, F0, F0, F0, F0, F0, F0
        z, x, y = F0, F0, F0
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
            if depth_gradients.shape[0] > 0:
                z += depth_gradients[q]
            if absolute.ndim == 2:
                x += absolute[q, 0]
                y += absolute[q, 1]
        v_means2d[flat, 0], v_means2d[flat, 1] = a0, a1
        v_conics[flat, 0], v_conics[flat, 1], v_conics[flat, 2] = a2, a3, a4
        v_opacities[flat] = a5
        v_colors[flat, 0], v_colors[flat, 1], v_colors[flat, 2] = a6, a7, a8
        if depth_gradients.shape[0] > 0:
            v_depths[flat] = z
        if absolute.ndim == 2:
            v_absolute[flat, 0], v_absolute[flat, 1] = x, y
