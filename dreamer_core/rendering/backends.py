"""Which renderer is used, and what to say when one cannot be."""

from __future__ import annotations

import logging
import warnings
from functools import cache

import torch

from ..errors import InputError

log = logging.getLogger(__name__)

NAMES = ("auto", "gsplat", "numba", "torch")

_REMEDIES = {
    "gsplat": "choose 'auto' or 'numba', or install a gsplat wheel built for this torch and CUDA version",
    "numba": "choose 'auto' or 'torch', or install a numba that supports the installed numpy",
}


@cache
def _numba_reason() -> str:
    from .numba_runtime import unusable_reason

    return unusable_reason()


def _gsplat_reason(device: torch.device, *, load: bool) -> str:
    from .gsplat_backend import unusable_reason

    return unusable_reason(device, load=load)


def available_backends(device: torch.device | str) -> dict[str, str]:
    """Renderers by name for tensors on `device`: an empty string where usable, else the reason why not.

    gsplat is neither imported nor built to find out; `resolve_backend` does that.
    """
    device = torch.device(device)
    return {"gsplat": _gsplat_reason(device, load=False), "numba": _numba_reason(), "torch": ""}


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def resolve_backend(name: str, device: torch.device | str) -> str:
    """The renderer that `name` means for tensors on `device`: "auto", "gsplat", "numba" or "torch".

    "auto" is gsplat on a CUDA device, else numba, else plain torch; it warns once where it settles for less.
    Raises InputError where a renderer asked for by name cannot work.
    """
    device = torch.device(device)
    if name not in NAMES:
        raise InputError("renderer", f"one of {', '.join(NAMES)}", repr(name))
    if name == "torch":
        return name
    if name != "auto":
        reason = _gsplat_reason(device, load=True) if name == "gsplat" else _numba_reason()
        if reason:
            raise InputError("renderer", "one that works here", f"{name!r}: {reason}", _REMEDIES[name])
        return name
    reasons = []
    if device.type == "cuda":
        reason = _gsplat_reason(device, load=True)
        if not reason:
            return "gsplat"
        reasons.append(f"gsplat is not used: {reason}")
    reason = _numba_reason()
    chosen = "torch" if reason else "numba"
    if reason:
        reasons.append(f"the fast portable renderer is not used: {reason}")
    if reasons:
        _warn_once(f"Rendering with {chosen!r}, which is slower. {'; '.join(reasons)}.")
    return chosen
