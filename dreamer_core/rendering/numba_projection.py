"""Projection of Gaussians onto image planes and its gradient: numba kernels.

The forward pass is the EWA projection of `torch_backend.project`, the backward pass its derivative written out.
Both run over the Gaussians in parallel and over the views inside, so gradients are summed in a fixed order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
"""Without nnan and ninf: masked lanes may hold anything, and selects must stay selects."""

F0, F1, F2 = np.float32(0.0), np.float32(1.0), np.float32(2.0)
HALF = np.float32(0.5)
MARGIN = np.float32(0.15)
ALPHA_MIN = np.float32(1.0 / 255.0)
INVERSE_ALPHA_MIN = np.float32(255.0)
RADIUS_MAX = np.float32(3.33)


@njit(parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def project(
    means: Any,  # [N, 3]
    quats: Any,  # [N, 4]
    scales: Any,  # [N, 3]
    opacities: Any,  # [N]
    viewmats: Any,  # [C, 4, 4]
    Ks: Any,  # [C, 3, 3]
    width: Any,  # float32
    height: Any,  # float32
    eps2d: Any,  # float32
    near: Any,  # float32
    far: Any,  # float32
    ortho: Any,  # bool
    means2d: Any,  # [C, N, 2] out
    conics: Any,  # [C, N, 3] out
    depths: Any,  # [C, N] out
    radii: Any,  # [C, N, 2] int32 out
) -> None:
    for i in prange(means.shape[0]):
        x, y, z = means[i, 0], means[i, 1], means[i, 2]
        w, a, b, c = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = F1 / math.sqrt(w * w + a * a + b * b + c * c)
        w, a, b, c = w * n, a * n, b * n, c * n
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        m00, m01, m02 = (F1 - F2 * (b * b + c * c)) * s0, F2 * (a * b - w * c) * s1, F2 * (a * c + w * b) * s2
        m10, m11, m12 = F2 * (a * b + w * c) * s0, (F1 - F2 * (a * a + c * c)) * s1, F2 * (b * c - w * a) * s2
        m20, m21, m22 = F2 * (a * c - w * b) * s0, F2 * (b * c + w * a) * s1, (F1 - F2 * (a * a + b * b)) * s2
        o = opacities[i]
        extent = F0
        if o >= ALPHA_MIN:
            extent = min(RADIUS_MAX, math.sqrt(F2 * math.log(o * INVERSE_ALPHA_MIN)))
        for v in range(viewmats.shape[0]):
            V = viewmats[v]
            fx, fy, cx, cy = Ks[v, 0, 0], Ks[v, 1, 1], Ks[v, 0, 2], Ks[v, 1, 2]
            radii[v, i, 0] = radii[v, i, 1] = 0
            means2d[v, i, 0] = means2d[v, i, 1] = F0
            conics[v, i, 0] = conics[v, i, 1] = conics[v, i, 2] = F0
            tx = V[0, 0] * x + V[0, 1] * y + V[0, 2] * z + V[0, 3]
            ty = V[1, 0] * x + V[1, 1] * y + V[1, 2] * z + V[1, 3]
            tz = V[2, 0] * x + V[2, 1] * y + V[2, 2] * z + V[2, 3]
            depths[v, i] = tz
            # Written so that NaN anywhere leaves the Gaussian undrawn.
            if not (tz >= near and tz <= far and o >= ALPHA_MIN):
                continue
            if ortho:
                rz, ux, uy = F1, F0, F0
            else:
                rz = F1 / tz
                mx, my = MARGIN * width / fx, MARGIN * height / fy
                ux = min(max(tx * rz, -(cx / fx + mx)), (width - cx) / fx + mx)
                uy = min(max(ty * rz, -(cy / fy + my)), (height - cy) / fy + my)
            j00, j02, j11, j12 = fx * rz, -fx * ux * rz, fy * rz, -fy * uy * rz
            t00, t01, t02 = (
                j00 * V[0, 0] + j02 * V[2, 0],
                j00 * V[0, 1] + j02 * V[2, 1],
                j00 * V[0, 2] + j02 * V[2, 2],
            )
            t10, t11, t12 = (
                j11 * V[1, 0] + j12 * V[2, 0],
                j11 * V[1, 1] + j12 * V[2, 1],
                j11 * V[1, 2] + j12 * V[2, 2],
            )
            a0, a1 = t00 * m00 + t01 * m10 + t02 * m20, t00 * m01 + t01 * m11 + t02 * m21
            a2 = t00 * m02 + t01 * m12 + t02 * m22
            b0, b1 = t10 * m00 + t11 * m10 + t12 * m20, t10 * m01 + t11 * m11 + t12 * m21
            b2 = t10 * m02 + t11 * m12 + t12 * m22
            xx = a0 * a0 + a1 * a1 + a2 * a2 + eps2d
            xy = a0 * b0 + a1 * b1 + a2 * b2
            yy = b0 * b0 + b1 * b1 + b2 * b2 + eps2d
            det = xx * yy - xy * xy
            rx, ry = math.ceil(extent * math.sqrt(xx)), math.ceil(extent * math.sqrt(yy))
            px, py = fx * tx * rz + cx, fy * ty * rz + cy
            if not (det > F0 and px + rx > F0 and px - rx < width and py + ry > F0 and py - ry < height):
                continue
            inverse = F1 / det
            means2d[v, i, 0], means2d[v, i, 1] = px, py
            conics[v, i, 0], conics[v, i, 1], conics[v, i, 2] = yy * inverse, -xy * inverse, xx * inverse
            radii[v, i, 0], radii[v, i, 1] = np.int32(rx), np.int32(ry)


@njit(parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def project_backward(
    means: Any,  # [N, 3]
    quats: Any,  # [N, 4]
    scales: Any,  # [N, 3]
    viewmats: Any,  # [C, 4, 4]
    Ks: Any,  # [C, 3, 3]
    width: Any,  # float32
    height: Any,  # float32
    ortho: Any,  # bool
    conics: Any,  # [C, N, 3]
    radii: Any,  # [C, N, 2]
    v_means2d: Any,  # [C, N, 2]
    v_conics: Any,  # [C, N, 3]
    v_depths: Any,  # [C, N]
    v_means: Any,  # [N, 3] out
    v_quats: Any,  # [N, 4] out
    v_scales: Any,  # [N, 3] out
) -> None:
    for i in prange(means.shape[0]):
        x, y, z = means[i, 0], means[i, 1], means[i, 2]
        w, a, b, c = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = F1 / math.sqrt(w * w + a * a + b * b + c * c)
        w, a, b, c = w * n, a * n, b * n, c * n
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        r00, r01, r02 = F1 - F2 * (b * b + c * c), F2 * (a * b - w * c), F2 * (a * c + w * b)
        r10, r11, r12 = F2 * (a * b + w * c), F1 - F2 * (a * a + c * c), F2 * (b * c - w * a)
        r20, r21, r22 = F2 * (a * c - w * b), F2 * (b * c + w * a), F1 - F2 * (a * a + b * b)
        m00, m01, m02 = r00 * s0, r01 * s1, r02 * s2
        m10, m11, m12 = r10 * s0, r11 * s1, r12 * s2
        m20, m21, m22 = r20 * s0, r21 * s1, r22 * s2
        # Gradients of the mean and of M = rotation * scales, summed over the views.
        gx, gy, gz = F0, F0, F0
        g00, g01, g02, g10, g11, g12, g20, g21, g22 = F0, F0, F0, F0, F0, F0, F0, F0, F0
        for v in range(viewmats.shape[0]):
            if radii[v, i, 0] <= 0 or radii[v, i, 1] <= 0:
                continue
            V = viewmats[v]
            fx, fy, cx, cy = Ks[v, 0, 0], Ks[v, 1, 1], Ks[v, 0, 2], Ks[v, 1, 2]
            tx = V[0, 0] * x + V[0, 1] * y + V[0, 2] * z + V[0, 3]
            ty = V[1, 0] * x + V[1, 1] * y + V[1, 2] * z + V[1, 3]
            tz = V[2, 0] * x + V[2, 1] * y + V[2, 2] * z + V[2, 3]
            rz = F1 if ortho else F1 / tz
            mx, my = MARGIN * width / fx, MARGIN * height / fy
            lx, hx = -(cx / fx + mx), (width - cx) / fx + mx
            ly, hy = -(cy / fy + my), (height - cy) / fy + my
            qx, qy = tx * rz, ty * rz
            ux, uy = min(max(qx, lx), hx), min(max(qy, ly), hy)
            if ortho:
                ux, uy = F0, F0
            j00, j02, j11, j12 = fx * rz, -fx * ux * rz, fy * rz, -fy * uy * rz
            t00, t01, t02 = (
                j00 * V[0, 0] + j02 * V[2, 0],
                j00 * V[0, 1] + j02 * V[2, 1],
                j00 * V[0, 2] + j02 * V[2, 2],
            )
            t10, t11, t12 = (
                j11 * V[1, 0] + j12 * V[2, 0],
                j11 * V[1, 1] + j12 * V[2, 1],
                j11 * V[1, 2] + j12 * V[2, 2],
            )
            a0, a1 = t00 * m00 + t01 * m10 + t02 * m20, t00 * m01 + t01 * m11 + t02 * m21
            a2 = t00 * m02 + t01 * m12 + t02 * m22
            b0, b1 = t10 * m00 + t11 * m10 + t12 * m20, t10 * m01 + t11 * m11 + t12 * m21
            b2 = t10 * m02 + t11 * m12 + t12 * m22
            # d loss / d covariance = -conic (d loss / d conic) conic, symmetric.
            p, q, r = conics[v, i, 0], conics[v, i, 1], conics[v, i, 2]
            va, vb, vc = v_conics[v, i, 0], HALF * v_conics[v, i, 1], v_conics[v, i, 2]
            e00, e01, e10, e11 = p * va + q * vb, p * vb + q * vc, q * va + r * vb, q * vb + r * vc
            h00, h01, h11 = -(e00 * p + e01 * q), -(e00 * q + e01 * r), -(e10 * q + e11 * r)
            # The covariance is A A^T with rows a and b, and A = T M with T = J W.
            va0, va1, va2 = F2 * (h00 * a0 + h01 * b0), F2 * (h00 * a1 + h01 * b1), F2 * (h00 * a2 + h01 * b2)
            vb0, vb1, vb2 = F2 * (h01 * a0 + h11 * b0), F2 * (h01 * a1 + h11 * b1), F2 * (h01 * a2 + h11 * b2)
            g00, g01, g02 = (
                g00 + t00 * va0 + t10 * vb0,
                g01 + t00 * va1 + t10 * vb1,
                g02 + t00 * va2 + t10 * vb2,
            )
            g10, g11, g12 = (
                g10 + t01 * va0 + t11 * vb0,
                g11 + t01 * va1 + t11 * vb1,
                g12 + t01 * va2 + t11 * vb2,
            )
            g20, g21, g22 = (
                g20 + t02 * va0 + t12 * vb0,
                g21 + t02 * va1 + t12 * vb1,
                g22 + t02 * va2 + t12 * vb2,
            )
            vt00, vt01 = va0 * m00 + va1 * m01 + va2 * m02, va0 * m10 + va1 * m11 + va2 * m12
            vt02 = va0 * m20 + va1 * m21 + va2 * m22
            vt10, vt11 = vb0 * m00 + vb1 * m01 + vb2 * m02, vb0 * m10 + vb1 * m11 + vb2 * m12
            vt12 = vb0 * m20 + vb1 * m21 + vb2 * m22
            vj00 = vt00 * V[0, 0] + vt01 * V[0, 1] + vt02 * V[0, 2]
            vj02 = vt00 * V[2, 0] + vt01 * V[2, 1] + vt02 * V[2, 2]
            vj11 = vt10 * V[1, 0] + vt11 * V[1, 1] + vt12 * V[1, 2]
            vj12 = vt10 * V[2, 0] + vt11 * V[2, 1] + vt12 * V[2, 2]
            vx, vy = v_means2d[v, i, 0], v_means2d[v, i, 1]
            rz2 = rz * rz
            vtx, vty = fx * rz * vx, fy * rz * vy
            vtz = v_depths[v, i]
            if not ortho:  # there the Jacobian is constant
                vtz -= (fx * tx * vx + fy * ty * vy + fx * vj00 + fy * vj11) * rz2
                # A clamped direction no longer follows the mean sideways; j02 = -fx u / z still depends on z.
                if qx >= lx and qx <= hx:
                    vtx -= fx * rz2 * vj02
                    vtz += F2 * fx * qx * rz2 * vj02
                else:
                    vtz += fx * ux * rz2 * vj02
                if qy >= ly and qy <= hy:
                    vty -= fy * rz2 * vj12
                    vtz += F2 * fy * qy * rz2 * vj12
                else:
                    vtz += fy * uy * rz2 * vj12
            gx += V[0, 0] * vtx + V[1, 0] * vty + V[2, 0] * vtz
            gy += V[0, 1] * vtx + V[1, 1] * vty + V[2, 1] * vtz
            gz += V[0, 2] * vtx + V[1, 2] * vty + V[2, 2] * vtz
        v_means[i, 0], v_means[i, 1], v_means[i, 2] = gx, gy, gz
        v_scales[i, 0] = r00 * g00 + r10 * g10 + r20 * g20
        v_scales[i, 1] = r01 * g01 + r11 * g11 + r21 * g21
        v_scales[i, 2] = r02 * g02 + r12 * g12 + r22 * g22
        g00, g01, g02 = g00 * s0, g01 * s1, g02 * s2
        g10, g11, g12 = g10 * s0, g11 * s1, g12 * s2
        g20, g21, g22 = g20 * s0, g21 * s1, g22 * s2
        vw = F2 * (-c * g01 + b * g02 + c * g10 - a * g12 - b * g20 + a * g21)
        va = F2 * (b * g01 + c * g02 + b * g10 - F2 * a * g11 - w * g12 + c * g20 + w * g21 - F2 * a * g22)
        vb = F2 * (-F2 * b * g00 + a * g01 + w * g02 + a * g10 + c * g12 - w * g20 + c * g21 - F2 * b * g22)
        vc = F2 * (-F2 * c * g00 - w * g01 + a * g02 + w * g10 - F2 * c * g11 + b * g12 + a * g20 + b * g21)
        along = vw * w + va * a + vb * b + vc * c
        v_quats[i, 0], v_quats[i, 1] = (vw - along * w) * n, (va - along * a) * n
        v_quats[i, 2], v_quats[i, 3] = (vb - along * b) * n, (vc - along * c) * n
