"""What every renderer is: one declaration, in a file of its own, with one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .output import RenderOutput


@dataclass(frozen=True, eq=False)
class RasterizeCall:
    """What to draw, from where and how. Errors: ValueError for wrong shapes."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4] wxyz, any length above 0
    scales: Tensor  # [N, 3] linear
    opacities: Tensor  # [N] in [0, 1]
    colors: Tensor  # [N, 3] or [C, N, 3]
    viewmats: Tensor  # [C, 4, 4] world -> camera, OpenCV
    Ks: Tensor  # [C, 3, 3] pixels
    width: int
    height: int
    backgrounds: Tensor | None = None  # [C, 3]
    """Colours behind the Gaussians; None is black."""
    depth: bool = False
    """Also accumulate depth."""
    depth_gradient: bool = True
    """False takes z for a constant in the depth channel; gradients through the blending weights stay."""
    near: float = 0.01
    far: float = 1e10
    """Depths drawn, world units."""
    eps2d: float = 0.3
    """Added to the image-plane variances, square pixels."""
    orthographic: bool = False
    """Parallel rays; the focal lengths of `Ks` are pixels per world unit."""

    def __post_init__(self) -> None:
        n, views = self.means.shape[0], self.views
        expected: dict[str, list[tuple[int, ...]]] = {
            "means": [(n, 3)],
            "quats": [(n, 4)],
            "scales": [(n, 3)],
            "opacities": [(n,)],
            "colors": [(n, 3), (views, n, 3)],
            "viewmats": [(views, 4, 4)],
            "Ks": [(views, 3, 3)],
        }
        if self.backgrounds is not None:
            expected["backgrounds"] = [(views, 3)]
        for name, shapes in expected.items():
            shape = tuple(getattr(self, name).shape)
            if shape not in shapes:
                text = " or ".join(str(one) for one in shapes)
                raise ValueError(f"{name} must have shape {text}, but got {shape}")
        if views < 1 or self.width < 1 or self.height < 1:
            raise ValueError(
                f"views, width and height must be at least 1, but got {views}, {self.width} and {self.height}"
            )

    @property
    def views(self) -> int:
        """C, the number of images."""
        return self.viewmats.shape[0]

    def info(self, **tensors: Tensor) -> dict[str, Any]:
        """`RenderOutput.info`, with the renderer's own `tensors`."""
        sizes = {"width": self.width, "height": self.height, "n_cameras": self.views, "gaussian_ids": None}
        return {**sizes, **tensors}


def _usable(device: torch.device, load: bool) -> str:
    return ""


@dataclass(frozen=True)
class Renderer:
    """A renderer as the user chooses it."""

    name: str
    purpose: str
    """Where it is good, in one line."""
    rasterize: Callable[[RasterizeCall], RenderOutput]
    """Alpha-blended images of 3D Gaussians, with the constants of gsplat 1.5.3. Gradients reach means, quats, scales,
    opacities, colors and backgrounds, not the cameras."""
    unusable_reason: Callable[[torch.device, bool], str] = _usable
    """Why it cannot work for tensors on a device, or an empty string. True: it is loaded, built if that is needed, and
    tried; False: nothing is built to find out."""
    remedy: str = ""
    """What to do where it cannot work."""
    devices: tuple[str, ...] = ()
    """Types of the devices it is made for: "auto" passes over it on others without a word. Empty: all."""
