"""Counting the memory of networks without having it: tensors without data, every operation watched."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations made under this mode and that still live: `live` now, `peak` at most.

    Tensors from before do not count. What an operation takes inside (cuDNN's workspaces) is not seen, and the
    allocator's rounding neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, count=False)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, count=True)
        return out

    def _watch(self, tensor: torch.Tensor, *, count: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes() if count else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def peak_bytes(make: Callable[[], Callable[[], Any]]) -> int:
    """Peak of the bytes alive while `make()()` runs; what `make` builds, parameters and inputs, does not count.

    Both run on tensors without data, so nothing is computed and next to no memory is used.
    """
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        work = make()
        counter = stack.enter_context(LiveBytes())
        result = work()
        del result
        return counter.peak


def parameter_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in [*module.parameters(), *module.buffers()])
