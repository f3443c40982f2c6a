"""In front of the cameras and back: a splat of any place, size and up axis, without asking anybody to rescale it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..initializers.placement import SPLAT_UP, extent, rotated, upright
from ..initializers.point_cloud import FITTED_SIZE

SEEN = 0.05
"""Opacity from which a Gaussian counts for the extent, where any does."""
NEAR_ENOUGH = 0.3
"""Distance of the centre from the origin, and..."""
SIZES = (0.5, 1.1)
"""...radii with which a splat is left where it is: the cameras look at a ball of radius 1."""


@dataclass(frozen=True)
class Placement:
    """placed = factor * rotation (x - centre), in double precision until it is small."""

    centre: Tensor  # [3] float64
    factor: float
    rotation: Tensor  # [3, 3] float64

    @staticmethod
    def of(
        gaussians: Gaussians, about: Tensor | None = None, up: str = "auto", yaw: float = 0.0, field: str = "up"
    ) -> Placement:
        """What brings the splat, or those of its Gaussians in the mask `about` [N], into a ball of radius 0.8.

        A splat that lies well already is only turned. `up` and `yaw` as of `initializers.oriented`. Errors: InputError.
        """
        rotation = upright(SPLAT_UP if up == "auto" else up, yaw, field) @ upright(SPLAT_UP).T
        chosen = gaussians if about is None else gaussians[about]
        seen = chosen.opacities >= SEEN
        if bool(seen.any()):
            chosen = chosen[seen]
        centre, radius = extent(chosen.means.detach().cpu().double())
        size = float(chosen.log_scales.detach().amax(dim=1).median().exp())
        radius = max(radius, 2 * size)
        if about is None and centre.norm() <= NEAR_ENOUGH and SIZES[0] <= radius <= SIZES[1]:
            centre, radius = torch.zeros(3, dtype=torch.float64), FITTED_SIZE
        return Placement(centre, FITTED_SIZE / radius, rotation)

    @property
    def stays(self) -> bool:
        """Whether nothing moves."""
        still = self.factor == 1.0 and not bool(self.centre.any())
        return still and torch.equal(self.rotation, torch.eye(3, dtype=torch.float64))

    def place(self, gaussians: Gaussians) -> Gaussians:
        """Where the cameras are; float32."""
        if self.stays:
            return gaussians.map(torch.Tensor.float)
        centre = self.centre.to(gaussians.device)
        moved = replace(
            gaussians,
            means=(gaussians.means.double() - centre) * self.factor,
            log_scales=gaussians.log_scales + math.log(self.factor),
        )
        return rotated(moved, self.rotation).map(torch.Tensor.float)

    def back(self, gaussians: Gaussians) -> Gaussians:
        """The inverse; positions in double precision."""
        if self.stays:
            return gaussians
        turned = rotated(replace(gaussians, means=gaussians.means.double()), self.rotation.T)
        return replace(
            turned,
            means=turned.means / self.factor + self.centre.to(gaussians.device),
            log_scales=turned.log_scales - math.log(self.factor),
        )
