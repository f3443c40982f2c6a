"""A GPU without a GPU: `meta` tensors stand for it, and a mode refuses what CUDA would refuse or wait for.

Meta tensors compute shapes and types alone, forwards and backwards, at any size. By themselves they mix with the
processor's tensors without a word, so every operation is looked at on its way.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
GPU = torch.device("meta")
COPIES = {aten._to_copy.default, aten.to.dtype_layout, aten.to.device, aten.to.other}
TRANSFERS = COPIES | {aten.copy_.default, aten.lift_fresh.default}
"""Operations that bring tensors from one device to another on purpose."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
HEAVY = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default,
}  # fmt: skip
"""Where time and memory go."""
PLACE = Path(__file__).resolve().parents[1]


class MixedDevicesError(AssertionError):
    """One operation on tensors of two devices."""


@dataclass
class Seen:
    """What a piece of work did."""

    waits: list[str] = field(default_factory=list)
    """Where the processor would wait for the GPU: numbers read, elements counted; innermost line of ours."""
    uploads: list[str] = field(default_factory=list)
    """What is brought over from ordinary memory; CUDA waits for that, too, but only until the copy is made."""
    heavy: dict[str, set[torch.dtype]] = field(default_factory=dict)
    """Types of heavy operations' inputs by the network they were in."""
    kinds: set[torch.dtype] = field(default_factory=set)
    """Floating types that any operation on the GPU made."""


def our_line() -> str:
    """The innermost line of this project, or of the host's, that led here."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(str(PLACE / "tests"))]
    ours = [f for f in frames if "/dreamer_core/" in f.filename or "/nodes/" in f.filename]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.name}"


class OneDevice(TorchDispatchMode):
    """Refuses operations across devices; notes waits and types.

    What it reads from the GPU: whole numbers are `count`, others 1.0; half of a mask counts.
    """

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.seen = Seen()
        self.count = count
        self.zone = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_gpu = [x for x in tensors if x.device.type == GPU.type]
        if on_gpu:
            if func is aten._local_scalar_dense.default:
                self.seen.waits.append(our_line())
                return 1.0 if on_gpu[0].is_floating_point() else self.count
            if func is aten.nonzero.default:
                self.seen.waits.append(our_line())
                return torch.empty(on_gpu[0].numel() // 2, on_gpu[0].ndim, dtype=torch.long, device=GPU)
            if func in COPIES and torch.device(kwargs.get("device") or GPU).type == "cpu":
                self.seen.waits.append(our_line())
                return torch.full(on_gpu[0].shape, 1.0, dtype=kwargs.get("dtype") or on_gpu[0].dtype)
            if func is aten.bincount.default:
                self.seen.waits.append(our_line())
                return torch.empty(len(on_gpu[0]), dtype=torch.long, device=GPU)
            if func in INDEXING:
                args = (args[0], [found for i in args[1] for found in self._counted(i)], *args[2:])
            self._check(func, args, tensors)
            if func in HEAVY and self.zone:
                types_here = {x.dtype for x in on_gpu if x.is_floating_point()}
                self.seen.heavy.setdefault(self.zone, set()).update(types_here)
        elif func in COPIES and kwargs.get("device") is not None and torch.device(kwargs["device"]).type == GPU.type:
            self.seen.uploads.append(our_line())
        out = func(*args, **kwargs)
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.device.type == GPU.type and x.is_floating_point():
                self.seen.kinds.add(x.dtype)
        return out

    def _counted(self, index: Tensor | None) -> list[Tensor | None]:
        """A mask as numbers for each of its dimensions: how many is something that the processor waits for."""
        if index is None or index.dtype != torch.bool:
            return [index]
        self.seen.waits.append(our_line())
        return [torch.empty(index.numel() // 2, dtype=torch.long, device=index.device)] * index.ndim

    @staticmethod
    def _check(func: Any, args: Any, tensors: list[Tensor]) -> None:
        if func in TRANSFERS:
            return
        # A number of the processor may take part; its indices, too, but they are brought over, which waits.
        here = [x for x in tensors if x.device.type != GPU.type and x.ndim > 0]
        if here:
            shapes = ", ".join(f"{tuple(x.shape)} on {x.device.type}" for x in tensors)
            raise MixedDevicesError(f"{func} on {shapes} at {our_line()}")

    @contextmanager
    def inside(self, zone: str) -> Iterator[None]:
        """Heavy operations count for this network."""
        before, self.zone = self.zone, zone
        try:
            yield
        finally:
            self.zone = before

    def watched(self, forward: Callable[..., Any], zone: str) -> Callable[..., Any]:
        """A network's forward pass inside a zone."""

        def inside(*args: Any, **kwargs: Any) -> Any:
            with self.inside(zone):
                return forward(*args, **kwargs)

        return inside


def attention(mode: OneDevice, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`scaled_dot_product_attention` in shape and graph; on meta tensors the real one takes a detour in float32."""
    mode.seen.heavy.setdefault(mode.zone, set()).update(x.dtype for x in (q, k, v))
    return q + k.mean() + v.mean()


def drawn(module_named: Callable[[str], Any], call: Any) -> Any:
    """A renderer in shape and graph; `module_named` gives the modules of the copy of the core that asks."""
    n, views = len(call.means), call.views
    means2d = torch.einsum("cij,nj->cni", call.viewmats[:, :2, :3], call.means)
    depths = torch.einsum("cj,nj->cn", call.viewmats[:, 2, :3], call.means)
    shape = means2d.mean() + call.quats.mean() + call.scales.mean() + call.opacities.mean()
    pixels = call.means.new_zeros(views, call.height, call.width, 1) + shape
    colors = pixels + call.colors.mean() + call.backgrounds[:, None, None]
    radii = torch.ones(views, n, 2, dtype=torch.int32, device=call.means.device)
    conics = call.means.new_ones(views, n, 3)
    info = call.info(
        radii=radii, means2d=means2d, depths=depths, conics=conics, opacities=call.opacities.expand(views, n)
    )
    output = module_named("dreamer_core.rendering.output").RenderOutput
    return output(colors, pixels.sigmoid(), pixels + depths.mean() if call.depth else None, info)
