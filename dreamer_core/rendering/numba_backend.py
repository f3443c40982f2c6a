"""The portable renderer: numba kernels on the CPU in float32, bit-equal on every run once they are compiled.

The run that compiles them may round differently in the last bit from runs that load them from numba's cache.

Tensors of other devices and types are copied to the host as float32 and the results copied back, gradients
included, so it also serves graphics cards for which no gsplat build exists. All views go through in one call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import numba_runtime
from .output import RenderOutput
from .renderer import RasterizeCall

numba_runtime.import_kernels()

from numba import get_num_threads  # noqa: E402

from . import numba_binning as binning  # noqa: E402
from . import numba_blending as blending  # noqa: E402
from . import numba_projection as projection  # noqa: E402

Array = np.ndarray
SERIAL_BELOW = 8192
"""Drawn Gaussians; fewer are sorted by one worker."""


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _host(tensor: Tensor) -> Tensor:
    return tensor.to(device="cpu", dtype=torch.float32)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        near: float,
        far: float,
        eps2d: float,
        orthographic: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        views, n = viewmats.shape[0], means.shape[0]
        inputs = [_array(x) for x in (means, quats, scales)]
        cameras = [_array(x) for x in (viewmats, Ks)]
        size = (np.float32(width), np.float32(height))
        limits = (np.float32(eps2d), np.float32(near), np.float32(far))
        means2d, conics = np.empty((views, n, 2), np.float32), np.empty((views, n, 3), np.float32)
        depths, radii = np.empty((views, n), np.float32), np.empty((views, n, 2), np.int32)
        with numba_runtime.KERNELS:
            outputs = (means2d, conics, depths, radii)
            projection.project(*inputs, _array(opacities), *cameras, *size, *limits, orthographic, *outputs)
        ctx.inputs = (*inputs, *cameras, *size, orthographic, conics, radii)
        tensors = tuple(torch.from_numpy(x) for x in outputs)
        ctx.mark_non_differentiable(tensors[3])
        return tensors  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        outputs = [np.empty_like(x) for x in ctx.inputs[:3]]
        with numba_runtime.KERNELS:
            projection.project_backward(*ctx.inputs, *(_array(g) for g in grads[:3]), *outputs)
        return (*(torch.from_numpy(x) for x in outputs), *([None] * 9))


class _Lists(NamedTuple):
    """What `numba_binning` makes of the projected Gaussians."""

    order: Array  # [R] int32
    records: Array  # [R, RECORD]
    slots: Array  # [R + 1] int64
    starts: Array  # [bins + 1] int64
    ids: Array  # [M] int32
    columns: int
    rows: int


def _build_lists(
    means2d: Array,
    conics: Array,
    depths: Array,
    radii: Array,
    opacities: Array,
    colors: Array,
    width: int,
    height: int,
) -> _Lists:
    views, n = depths.shape
    columns, rows = -(-width // binning.TILE), -(-height // binning.TILE)
    visible = np.flatnonzero(radii.reshape(-1, 2)[:, 0] > 0).astype(np.int32)
    workers = get_num_threads() if len(visible) >= SERIAL_BELOW else 1
    # Depths of one sign order like their bits; from the nearest one on, few bits are left to sort by.
    flat_depths = depths.reshape(-1)
    keys = flat_depths[visible]
    if len(keys) and keys.min() < 0:
        keys = keys - keys.min()
    keys = (keys + np.float32(0.0)).view(np.uint32)
    if len(keys):
        keys = keys - keys.min()
    bits = int(keys.max()).bit_length() if len(keys) else 0
    order = binning.sort_keys(keys, visible, bits, workers)
    records = np.empty((len(order), binning.RECORD), np.float32)
    boxes = np.empty((len(order), 4), np.int32)
    binning.pack_records(
        order,
        means2d.reshape(-1, 2),
        conics.reshape(-1, 3),
        flat_depths,
        opacities,
        colors.reshape(-1, 3),
        width,
        height,
        records,
        boxes,
    )
    counts = np.empty((workers, views * rows * columns), np.int32)
    starts, slots = np.empty(counts.shape[1] + 1, np.int64), np.empty(len(order) + 1, np.int64)
    binning.count_tiles(order, boxes, n, columns, rows, counts)
    ids = np.empty(binning.accumulate(boxes, counts, starts, slots, records.view(np.int32)), np.int32)
    binning.fill_tiles(order, boxes, n, columns, rows, counts, ids)
    return _Lists(order, records, slots, starts, ids, columns, rows)


def _scratch() -> Array:
    """Per-worker buffers aligned to cache lines."""
    workers = get_num_threads()
    raw = np.empty(workers * blending.SCRATCH + 16, np.float32)
    offset = (-raw.ctypes.data) % 64 // 4
    return raw[offset : offset + workers * blending.SCRATCH].reshape(workers, blending.SCRATCH)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,  # [C, N, 2]
        conics: Tensor,  # [C, N, 3]
        depths: Tensor,  # [C, N]
        opacities: Tensor,  # [N]
        colors: Tensor,  # [N, 3] or [C, N, 3]
        backgrounds: Tensor,  # [C, 3]
        radii: Tensor,  # [C, N, 2]
        width: int,
        height: int,
        with_depth: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        views = means2d.shape[0]
        images = np.empty((views, height, width, 3), np.float32)
        transmittances = np.empty((views, height, width), np.float32)
        lasts = np.empty((views, height, width), np.int32)
        depth_sums = np.empty((views, height, width) if with_depth else 0, np.float32)
        background = _array(backgrounds)
        with numba_runtime.KERNELS:
            lists = _build_lists(
                _array(means2d),
                _array(conics),
                _array(depths),
                _array(radii),
                _array(opacities),
                _array(colors),
                width,
                height,
            )
            blending.forward(
                lists.columns,
                lists.rows,
                lists.records,
                lists.ids,
                lists.starts,
                background,
                images,
                transmittances,
                lasts,
                depth_sums,
                _scratch(),
            )
        ctx.lists, ctx.background, ctx.transmittances, ctx.lasts = lists, background, transmittances, lasts
        ctx.with_depth = with_depth
        ctx.shared_colors, ctx.shape = colors.ndim == 2, tuple(depths.shape)
        alphas = torch.from_numpy(1 - transmittances)
        return torch.from_numpy(images), alphas, torch.from_numpy(depth_sums)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        lists: _Lists = ctx.lists
        views, n = ctx.shape
        v_images, v_alphas, v_depth_sums = (_array(g) for g in grads)
        with_depths = ctx.with_depth and ctx.needs_input_grad[2]
        m = len(lists.ids)
        gradients = np.empty((m, blending.GRADIENTS + ctx.with_depth), np.float32)
        v_means2d, v_conics = np.zeros((views * n, 2), np.float32), np.zeros((views * n, 3), np.float32)
        v_opacities, v_colors = np.zeros(views * n, np.float32), np.zeros((views * n, 3), np.float32)
        v_depths = np.zeros(views * n if with_depths else 0, np.float32)
        with numba_runtime.KERNELS:
            blending.backward(
                lists.columns,
                lists.rows,
                lists.records,
                lists.ids,
                lists.starts,
                lists.records.view(np.int32),
                ctx.background,
                ctx.transmittances,
                ctx.lasts,
                v_images,
                v_alphas,
                v_depth_sums,
                gradients,
                _scratch(),
            )
            blending.sum_slots(
                lists.order,
                lists.slots,
                gradients,
                v_means2d,
                v_conics,
                v_opacities,
                v_colors,
                v_depths,
            )
        view_colors = torch.from_numpy(v_colors).view(views, n, 3)
        v_background = None
        if ctx.needs_input_grad[5]:
            v_background = torch.einsum("chw,chwd->cd", torch.from_numpy(ctx.transmittances), grads[0])
        return (
            torch.from_numpy(v_means2d).view(views, n, 2),
            torch.from_numpy(v_conics).view(views, n, 3),
            torch.from_numpy(v_depths).view(views, n) if with_depths else None,
            torch.from_numpy(v_opacities).view(views, n).sum(0),
            view_colors.sum(0) if ctx.shared_colors else view_colors,
            v_background,
            *([None] * 4),
        )


def rasterize(call: RasterizeCall) -> RenderOutput:
    """See `facade.rasterize`; computes in float32 on the host whatever the inputs are."""
    like = call.means.new_empty(0)
    opacities = _host(call.opacities)
    projected = _Project.apply(
        *(_host(x) for x in (call.means, call.quats, call.scales)),
        opacities.detach(),
        _host(call.viewmats),
        _host(call.Ks),
        call.width,
        call.height,
        call.near,
        call.far,
        call.eps2d,
        call.orthographic,
    )
    # Strategies combine means2d with the parameters, so it takes the path over their device.
    means2d, conics, depths = (x.to(like) for x in projected[:3])
    radii = projected[3]
    blend_depths = _host(depths)
    blended = _Blend.apply(
        _host(means2d),
        _host(conics),
        blend_depths if call.depth and call.depth_gradient else blend_depths.detach(),
        opacities,
        _host(call.colors),
        torch.zeros(call.views, 3) if call.backgrounds is None else _host(call.backgrounds),
        radii,
        call.width,
        call.height,
        call.depth,
    )
    images, alphas, depth_sums = (x.to(like) for x in blended)
    info = call.info(
        radii=radii.to(like.device),
        means2d=means2d,
        depths=depths,
        conics=conics,
        opacities=call.opacities.expand(call.views, -1),
    )
    return RenderOutput(images, alphas[..., None], depth_sums[..., None] if call.depth else None, info)
