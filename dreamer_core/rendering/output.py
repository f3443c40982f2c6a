"""What every renderer returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class RenderOutput:
    """Images of C views, and what density control needs to know about how they came about.

    `info` follows the contract of gsplat's strategies: `width`, `height`, `n_cameras`, `radii` [C, N, 2] int32
    in pixels (0 where a Gaussian is not drawn), `gaussian_ids` None, `means2d` [C, N, 2] in pixels, `depths`
    [C, N], `conics` [C, N, 3] and `opacities` [C, N]. `means2d` is the very tensor on the autograd path: call
    `retain_grad()` on it.
    """

    colors: Tensor  # [C, H, W, 3] over the backgrounds, black where there were none
    alphas: Tensor  # [C, H, W, 1]
    depth_sums: Tensor | None  # [C, H, W, 1] sum of weight * z over the Gaussians of a pixel, world units
    info: dict[str, Any]

    @property
    def expected_depths(self) -> Tensor:  # [C, H, W, 1]
        """Mean depth along each ray, `depth_sums / max(alpha, 1e-10)`: gsplat's "ED"."""
        if self.depth_sums is None:
            raise ValueError("expected_depths needs depth=True when rendering")
        return self.depth_sums / self.alphas.clamp_min(1e-10)
