"""Which renderer is used, and what to say when one cannot be."""

from __future__ import annotations

import warnings
from functools import cache

import torch

from ..errors import InputError
from .gsplat_backend import GSPLAT
from .numba_renderer import NUMBA
from .renderer import Renderer
from .torch_backend import TORCH

RENDERERS: tuple[Renderer, ...] = (GSPLAT, NUMBA, TORCH)
"""Every renderer in the order in which "auto" tries them; a new one is a file beside these and a name here."""

RENDERER_NAMES = ("auto", *(renderer.name for renderer in RENDERERS))
"""What a user can choose."""


def available_backends(device: torch.device | str) -> dict[str, str]:
    """Renderers by name for tensors on `device`: an empty string where usable, else the reason why not.

    gsplat is neither imported nor built to find out; `resolve_backend` does that.
    """
    device = torch.device(device)
    return {renderer.name: renderer.unusable_reason(device, False) for renderer in RENDERERS}


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _first_usable(device: torch.device) -> Renderer:
    """The renderer that "auto" means; warns once where it settles for less."""
    reasons: list[str] = []
    for renderer in RENDERERS:
        if renderer.devices and device.type not in renderer.devices:
            continue
        reason = renderer.unusable_reason(device, True)
        if not reason:
            if reasons:
                _warn_once(f"Rendering with {renderer.name!r}, which is slower. {'; '.join(reasons)}.")
            return renderer
        reasons.append(f"{renderer.name} is not used: {reason}")
    raise InputError("renderer", "one that works here", "; ".join(reasons))


def find_renderer(name: str, device: torch.device | str) -> Renderer:
    """The renderer that `name` means for tensors on `device`: "auto" is the first of RENDERERS that works there.

    Raises InputError where there is none of that name, or it cannot work.
    """
    device = torch.device(device)
    if name == "auto":
        return _first_usable(device)
    renderer = next((renderer for renderer in RENDERERS if renderer.name == name), None)
    if renderer is None:
        raise InputError("renderer", f"one of {', '.join(RENDERER_NAMES)}", repr(name))
    reason = renderer.unusable_reason(device, True)
    if reason:
        raise InputError("renderer", "one that works here", f"{name!r}: {reason}", renderer.remedy)
    return renderer


def resolve_backend(name: str, device: torch.device | str) -> str:
    """The name of the renderer that `find_renderer` finds."""
    return find_renderer(name, device).name
