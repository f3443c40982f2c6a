"""One splat being changed: what of it may change, where it stands, and how the result goes back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError
from ..gaussians import Gaussians
from ..prompts import PromptProcessor
from .original import Original, joined
from .placement import Placement
from .settings import EditSettings


@dataclass(frozen=True)
class Work:
    """The splat as it came and as the run sees it."""

    given: Gaussians
    """In its own place and size; what may change has lost its harmonics where they are flattened."""
    free: Tensor  # [N] bool
    """What may change."""
    placement: Placement
    original: Original
    note: str
    """What was done to it, for the user."""

    @staticmethod
    def of(
        gaussians: Gaussians,
        settings: EditSettings,
        free: Tensor | None = None,  # [N] bool; None: all
        source: PromptProcessor | None = None,
        up: str = "auto",
        yaw: float = 0.0,
    ) -> Work:
        """Errors: InputError where nothing may change, and for an unknown axis."""
        gaussians = gaussians.detach()
        everything = torch.ones(len(gaussians), dtype=torch.bool, device=gaussians.device)
        free = everything if free is None else free.to(gaussians.device)
        if not bool(free.any()):
            raise InputError("region", "at least one Gaussian in it", "none", "move or enlarge it")
        if settings.focus == "region" and bool(free.all()):
            raise InputError(
                "edit.focus", "a region to go round", "none, or one that holds everything", "set it to whole"
            )
        gaussians, note = _with_harmonics(gaussians, settings, free)
        placement = Placement.of(gaussians, free if settings.focus == "region" else None, up, yaw)
        placed = placement.place(gaussians)
        original = Original(joined([placed[free], placed[~free]]), int(free.sum()), settings, source)
        return Work(gaussians, free, placement, original, note)

    def with_source(self, source: PromptProcessor | None) -> Work:
        """The same with the words for what is, which are encoded later."""
        return replace(self, original=replace(self.original, source=source))

    @property
    def described(self) -> list[str]:
        """What people should know before it runs: how much may change, where the cameras go, what it does not do."""
        free, count = self.original.free, len(self.given)
        lines = [f"{free:,} of {count:,} Gaussians may change"] if free < count else []
        if not self.placement.stays:
            x, y, z = self.placement.centre.tolist()
            scale = f"1 unit of theirs is {1 / self.placement.factor:.4g}"
            lines.append(f"the cameras go round ({x:g}, {y:g}, {z:g}), {scale}")
        return [*lines, self.note] if self.note else lines

    @property
    def changing(self) -> Gaussians:
        """What a run starts from."""
        return self.original.incoming[: self.original.free]

    def result(self, changed: Gaussians) -> Gaussians:
        """The whole splat with what has changed, in its own place and size.

        Whatever did not change is what it was, to the bit: the locked Gaussians, and every parameter of the others
        that is as it started. Where density control has added or removed some, the locked ones come first.
        """
        changed = changed.to(self.given.device)
        back, was = dict(self.placement.back(changed).tensors()), dict(self.given[self.free].tensors())
        if len(changed) != self.original.free:
            kept = dict(self.given[~self.free].tensors())
            return Gaussians(**{name: torch.cat([kept[name], back[name].to(kept[name])]) for name in kept})
        now, before = dict(changed.tensors()), dict(self.changing.to(self.given.device).tensors())
        found: dict[str, Tensor] = {}
        for name, value in self.given.tensors():
            same = (now[name] == before[name]).flatten(1).all(dim=1) if value.dim() > 1 else now[name] == before[name]
            rows = same.reshape(-1, *[1] * (value.dim() - 1))
            found[name] = value.clone()
            found[name][self.free] = torch.where(rows, was[name], back[name].to(value))
        return Gaussians(**found)


def _with_harmonics(gaussians: Gaussians, settings: EditSettings, free: Tensor) -> tuple[Gaussians, str]:
    """The splat with its harmonics kept or flattened, and what to tell."""
    degree = gaussians.sh_degree
    if settings.strength == 0:
        return gaussians, "strength 0: nothing changes"
    if degree == 0:
        return gaussians, "no view-dependent colours to flatten" if settings.harmonics == "flatten" else ""
    if settings.harmonics == "keep" and settings.change == "shape":
        return gaussians, f"view-dependent colours (degree {degree}) stay as they are"
    if settings.harmonics == "keep":
        return gaussians, f"view-dependent colours (degree {degree}) are kept and change along"
    if bool(free.all()):
        return replace(gaussians, shN=gaussians.shN[:, :0]), f"view-dependent colours (degree {degree}) are flattened"
    flat = torch.where(free[:, None, None], 0.0, gaussians.shN)
    return replace(gaussians, shN=flat), f"view-dependent colours (degree {degree}) are flattened in the region"
