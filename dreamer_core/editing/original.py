"""The splat that a run changes: what of it is optimised, what stays, and what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..prompts import PromptProcessor
from .settings import EditSettings


def joined(parts: Sequence[Gaussians]) -> Gaussians:
    """Several splats as one, in order."""
    named = [dict(part.tensors()) for part in parts]
    return Gaussians(**{name: torch.cat([part[name] for part in named]) for name in named[0]})


@dataclass(frozen=True)
class Original:
    """Beside the state of a run, which holds the Gaussians that may change and no others."""

    incoming: Gaussians
    """The whole splat as it came, where the cameras are; those that may change come first."""
    free: int
    """How many may change."""
    settings: EditSettings
    source: PromptProcessor | None = None
    """What is, in words, for the delta of `delta.py`; None: plain guidance."""

    @property
    def locked(self) -> Gaussians:
        """Those that stay; they have neither gradients nor Adam moments, and density control never sees them."""
        return self.incoming[self.free :]

    @property
    def needs_reference(self) -> bool:
        """Whether the incoming splat must be rendered in every step."""
        return self.settings.anchored or self.source is not None

    def whole(self, changing: Gaussians) -> Gaussians:
        """What is rendered: the changing Gaussians first, then the locked ones."""
        return changing if self.free == len(self.incoming) else joined([changing, self.locked])

    def to(self, device: torch.device | str) -> Original:
        return Original(self.incoming.to(device), self.free, self.settings, self.source)


def of_changing(info: dict[str, Any], count: int) -> dict[str, Any]:
    """A renderer's info without the locked Gaussians, which come after the `count` that change; for density control."""
    means2d: Tensor = info["means2d"]
    if means2d.shape[1] == count:
        return info
    cut = means2d.detach()[:, :count].clone()
    cut.grad = None if means2d.grad is None else means2d.grad[:, :count]
    return {**info, "means2d": cut, "radii": info["radii"][:, :count]}
