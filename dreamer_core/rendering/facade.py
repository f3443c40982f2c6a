"""One way to render Gaussians, whichever renderer does it."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from ..cameras import Cameras
from ..gaussians import Gaussians
from .backends import resolve_backend
from .output import RenderOutput
from .spherical_harmonics import view_colors


def _module(name: str) -> ModuleType:
    if name == "numba":
        from . import numba_backend

        return numba_backend
    if name == "gsplat":
        from . import gsplat_backend

        return gsplat_backend
    from . import torch_backend

    return torch_backend


def _check_shapes(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    backgrounds: Tensor | None,
    width: int,
    height: int,
) -> None:
    n, views = means.shape[0], viewmats.shape[0]
    expected: dict[str, tuple[Tensor, list[tuple[int, ...]]]] = {
        "means": (means, [(n, 3)]),
        "quats": (quats, [(n, 4)]),
        "scales": (scales, [(n, 3)]),
        "opacities": (opacities, [(n,)]),
        "colors": (colors, [(n, 3), (views, n, 3)]),
        "viewmats": (viewmats, [(views, 4, 4)]),
        "Ks": (Ks, [(views, 3, 3)]),
    }
    if backgrounds is not None:
        expected["backgrounds"] = (backgrounds, [(views, 3)])
    for name, (tensor, shapes) in expected.items():
        if tuple(tensor.shape) not in shapes:
            text = " or ".join(str(shape) for shape in shapes)
            raise ValueError(f"{name} must have shape {text}, but got {tuple(tensor.shape)}")
    if views < 1 or width < 1 or height < 1:
        raise ValueError(f"views, width and height must be at least 1, but got {views}, {width} and {height}")


def rasterize(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz, any length above 0
    scales: Tensor,  # [N, 3] linear
    opacities: Tensor,  # [N] in [0, 1]
    colors: Tensor,  # [N, 3] or [C, N, 3]
    viewmats: Tensor,  # [C, 4, 4] world -> camera, OpenCV
    Ks: Tensor,  # [C, 3, 3] pixels
    width: int,
    height: int,
    *,
    backgrounds: Tensor | None = None,  # [C, 3]
    depth: bool = False,
    depth_gradient: bool = True,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    backend: str = "auto",
) -> RenderOutput:
    """Alpha-blended images of 3D Gaussians (Kerbl et al. 2023), with the constants of gsplat 1.5.3.

    Args:
        backgrounds: colours behind the Gaussians; None is black.
        depth: also accumulate depth.
        depth_gradient: False takes z for a constant in the depth channel; gradients through the blending
            weights stay.
        near, far: depths drawn, world units.
        eps2d: added to the image-plane variances, square pixels.
        backend: see `resolve_backend`.

    Raises InputError for an unusable `backend`, ValueError for wrong shapes. Gradients reach means, quats,
    scales, opacities, colors and backgrounds, not the cameras.
    """
    _check_shapes(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, width, height)
    module = _module(resolve_backend(backend, means.device))
    output: RenderOutput = module.rasterize(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        width,
        height,
        backgrounds=backgrounds,
        depth=depth,
        depth_gradient=depth_gradient,
        near=near,
        far=far,
        eps2d=eps2d,
    )
    return output


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backgrounds: Tensor | None = None,  # [C, 3]
    depth: bool = False,
    depth_gradient: bool = True,
    backend: str = "auto",
) -> RenderOutput:
    """Images of a scene from a batch of cameras; see `rasterize`. Cameras go to the scene's device."""
    device, dtype = gaussians.device, gaussians.means.dtype
    viewmats = cameras.viewmats.to(device=device, dtype=dtype)
    colors = view_colors(gaussians.means, gaussians.sh, gaussians.sh_degree, viewmats)
    return rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        colors,
        viewmats,
        cameras.Ks.to(device=device, dtype=dtype),
        cameras.width,
        cameras.height,
        backgrounds=None if backgrounds is None else backgrounds.to(device=device, dtype=dtype),
        depth=depth,
        depth_gradient=depth_gradient,
        backend=backend,
    )
