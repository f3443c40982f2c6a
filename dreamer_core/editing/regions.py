"""Which Gaussians of a splat an edit may change.

Lengths and places are the splat's own, in our axes (Y up, front +Z), as the viewer shows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InputError
from ..gaussians import Gaussians
from ..rendering import RasterizeCall, RenderOutput, rasterize
from .placement import Placement

Vector = tuple[float, float, float]
SEEN = 0.5
"""Share of what a Gaussian shows that must lie in the mask."""
VISIBLE = 0.1
"""Share of what it would show without those in front of it, below which it is hidden."""


class Part(ABC):
    """One part of a region."""

    kind: ClassVar[str]

    @abstractmethod
    def holds(self, gaussians: Gaussians) -> Tensor:  # [N] bool
        """Which Gaussians lie in it."""


@dataclass(frozen=True)
class Box(Part):
    """Centres inside an upright box."""

    centre: Vector
    size: Vector
    """Whole lengths of its sides."""
    kind = "box"

    def __post_init__(self) -> None:
        if not all(side > 0 for side in self.size):
            raise InputError("region", "sides above 0", self.size)

    def holds(self, gaussians: Gaussians) -> Tensor:
        means = gaussians.means.detach().double()
        away = (means - means.new_tensor(self.centre)).abs()
        return (away <= means.new_tensor(self.size) / 2).all(dim=1)


@dataclass(frozen=True)
class Sphere(Part):
    """Centres inside a ball."""

    centre: Vector
    radius: float
    kind = "sphere"

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise InputError("region", "a radius above 0", self.radius)

    def holds(self, gaussians: Gaussians) -> Tensor:
        means = gaussians.means.detach().double()
        return (means - means.new_tensor(self.centre)).norm(dim=1) <= self.radius


@dataclass(frozen=True)
class Nearest(Part):
    """So many Gaussians whose centres are nearest to a point, such as a click."""

    point: Vector
    count: int
    kind = "points"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError("region", "at least one Gaussian", self.count)

    def holds(self, gaussians: Gaussians) -> Tensor:
        means = gaussians.means.detach().double()
        distance = (means - means.new_tensor(self.point)).norm(dim=1)
        found = torch.zeros(len(means), dtype=torch.bool, device=means.device)
        found[distance.topk(min(self.count, len(means)), largest=False).indices] = True
        return found


@dataclass(frozen=True)
class Seen(Part):
    """What cameras see through masks: at least half of what such a Gaussian shows lies in them.

    What is hidden behind it stays out, unless `behind`: then every centre that lies in the masks of all cameras counts.
    """

    masks: Tensor  # [C, H, W] in [0, 1]
    cameras: Cameras
    behind: bool = False
    around_splat: bool = False
    """Whether the cameras see the splat as those of an edit do (`Placement`); else where and as large as it is."""
    kind = "masks"

    def __post_init__(self) -> None:
        expected = (len(self.cameras), self.cameras.height, self.cameras.width)
        if tuple(self.masks.shape) != expected:
            raise InputError("region", f"masks of shape {expected}", tuple(self.masks.shape))

    def holds(self, gaussians: Gaussians) -> Tensor:
        if self.around_splat:
            gaussians = Placement.of(gaussians).place(gaussians)
        return self._behind(gaussians) if self.behind else self._in_front(gaussians)

    def _in_front(self, gaussians: Gaussians) -> Tensor:
        """By blending weights: they are the derivatives of a picture by the colours."""
        g = gaussians.map(lambda x: x.detach().float())
        colors = torch.zeros(len(g), 3, device=g.device, requires_grad=True)
        with torch.enable_grad():
            call = RasterizeCall(
                g.means, g.quats, g.scales, g.opacities, colors,
                self.cameras.viewmats.to(g.means), self.cameras.Ks.to(g.means), self.cameras.width, self.cameras.height,
            )  # fmt: skip
            output = rasterize(call)
            picture = output.colors
            mask = self.masks.to(picture)
            inside, outside = (picture[..., 0] * mask).sum(), (picture[..., 1] * (1 - mask)).sum()
            (weights,) = torch.autograd.grad(inside + outside, colors)
        shown = weights[:, 0] + weights[:, 1]
        return (shown > VISIBLE * _footprints(output)) & (weights[:, 0] >= SEEN * shown)

    def _behind(self, gaussians: Gaussians) -> Tensor:
        means = gaussians.means.detach().double()
        found = torch.ones(len(means), dtype=torch.bool, device=means.device)
        for view in range(len(self.cameras)):
            camera = self.cameras[view]
            viewmat = camera.viewmat.to(means)
            local = means @ viewmat[:3, :3].T + viewmat[:3, 3]
            pixel = (local @ camera.K.to(means).T)[:, :2] / local[:, 2:].clamp_min(1e-9)
            x, y = pixel.floor().long().unbind(dim=1)
            inside = (local[:, 2] > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
            mask = self.masks[view].to(means.device)
            at = mask[y.clamp(0, camera.height - 1), x.clamp(0, camera.width - 1)]
            found &= inside & (at > SEEN)
        return found


def _footprints(output: RenderOutput) -> Tensor:
    """What each Gaussian [N] would show with nothing in front: opacity times area in pixels, over all views."""
    a, b, c = output.info["conics"].detach().unbind(dim=-1)  # each [C, N]
    area = 2 * torch.pi / (a * c - b * b).clamp_min(1e-12).sqrt()
    drawn = (output.info["radii"] > 0).all(dim=-1)
    return torch.where(drawn, output.info["opacities"].detach() * area, 0.0).sum(dim=0)


@dataclass(frozen=True)
class Region(Part):
    """What lies in any of the parts, or, inverted, in none; a part of another region, too."""

    parts: tuple[Part, ...]
    inverted: bool = False
    kind = "region"

    def holds(self, gaussians: Gaussians) -> Tensor:
        found = torch.zeros(len(gaussians), dtype=torch.bool, device=gaussians.device)
        for part in self.parts:
            found |= part.holds(gaussians)
        return ~found if self.inverted else found

    def mask(self, gaussians: Gaussians) -> Tensor:  # [N] bool
        """Which Gaussians may change. Errors: InputError where none may."""
        found = self.holds(gaussians)
        if not bool(found.any()):
            where = "outside of it" if self.inverted else "in it"
            raise InputError("region", f"at least one Gaussian {where}", "none", "move or resize it")
        return found


def parse_part(text: str, option: str = "--region") -> Part:
    """box:X,Y,Z,SX,SY,SZ, sphere:X,Y,Z,RADIUS or points:X,Y,Z,COUNT. Errors: InputError."""
    lengths = {"box": 6, "sphere": 4, "points": 4}
    kind, _, rest = text.partition(":")
    expected = "box:X,Y,Z,SX,SY,SZ, sphere:X,Y,Z,RADIUS or points:X,Y,Z,COUNT"
    try:
        numbers = [float(part) for part in rest.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != lengths.get(kind) or not all(abs(n) < float("inf") for n in numbers):
        raise InputError(option, expected, text)
    try:
        return part_of(kind, numbers)
    except InputError as error:
        raise InputError(option, error.expected, text) from error


def part_of(kind: str, numbers: Sequence[float]) -> Part:
    """A box, sphere or points of their numbers in the order of `parse_part`. Errors: InputError."""
    x, y, z, *rest = numbers
    if kind == "box":
        return Box((x, y, z), (rest[0], rest[1], rest[2]))
    if kind == "sphere":
        return Sphere((x, y, z), rest[0])
    if rest[0] != int(rest[0]):
        raise InputError("region", "a whole number of Gaussians", rest[0])
    return Nearest((x, y, z), int(rest[0]))
