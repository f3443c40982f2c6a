"""The portable renderer as it is listed: numba is imported only when it is going to be used."""

from __future__ import annotations

from functools import cache

import torch

from . import numba_runtime
from .output import RenderOutput
from .renderer import RasterizeCall, Renderer


@cache
def _reason() -> str:
    return numba_runtime.unusable_reason()


def unusable_reason(device: torch.device, load: bool = False) -> str:
    """Why numba cannot render, or an empty string; the same for every device. numba is imported to find out, once."""
    return _reason()


def rasterize(call: RasterizeCall) -> RenderOutput:
    """See `numba_backend.rasterize`."""
    from . import numba_backend

    return numba_backend.rasterize(call)


NUMBA = Renderer(
    name="numba",
    purpose="fast on any processor",
    rasterize=rasterize,
    unusable_reason=unusable_reason,
    remedy="choose 'auto' or 'torch', or install a numba that supports the installed numpy",
)
