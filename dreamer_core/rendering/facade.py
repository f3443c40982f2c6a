"""One way to render Gaussians, whichever renderer does it."""

from __future__ import annotations

from torch import Tensor

from ..cameras import Cameras
from ..gaussians import Gaussians
from .backends import find_renderer
from .output import RenderOutput
from .renderer import RasterizeCall
from .spherical_harmonics import view_colors


def rasterize(call: RasterizeCall, backend: str = "auto") -> RenderOutput:
    """Alpha-blended images of 3D Gaussians (Kerbl et al. 2023), with the constants of gsplat 1.5.3.

    Raises InputError for an unusable `backend`, see `resolve_backend`. Gradients reach means, quats, scales,
    opacities, colors and backgrounds, not the cameras.
    """
    return find_renderer(backend, call.means.device).rasterize(call)


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backgrounds: Tensor | None = None,  # [C, 3]
    depth: bool = False,
    depth_gradient: bool = True,
    backend: str = "auto",
) -> RenderOutput:
    """Images of a scene from a batch of cameras; see `RasterizeCall`. Cameras go to the scene's device."""
    device, dtype = gaussians.device, gaussians.means.dtype
    viewmats = cameras.viewmats.to(device=device, dtype=dtype)
    call = RasterizeCall(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        view_colors(gaussians.means, gaussians.sh, gaussians.sh_degree, viewmats, cameras.orthographic),
        viewmats,
        cameras.Ks.to(device=device, dtype=dtype),
        cameras.width,
        cameras.height,
        backgrounds=None if backgrounds is None else backgrounds.to(device=device, dtype=dtype),
        depth=depth,
        depth_gradient=depth_gradient,
        orthographic=cameras.orthographic,
    )
    return rasterize(call, backend)
