"""The CUDA renderer: gsplat 1.5 (Apache-2.0), imported only when it is going to be used."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import torch_backend
from .output import RenderOutput
from .renderer import RasterizeCall, Renderer

log = logging.getLogger(__name__)

BUILD_NOTICE = (
    "gsplat has no compiled CUDA code for this installation and is going to build it now, once. That takes minutes, "
    "on slow machines hours. To avoid it choose the renderer 'numba' (--renderer numba), or install a gsplat wheel "
    "built for this torch and CUDA version."
)
LOAD_NOTICE = (
    "gsplat loads the CUDA code that it built here before; where torch, CUDA or gsplat has changed since, it is built "
    "anew, which takes minutes, on slow machines hours. The renderer 'numba' (--renderer numba) does without."
)
NO_EXTENSION = (
    "gsplat's CUDA code is missing: there is no prebuilt extension and no CUDA toolkit (nvcc) to build it with"
)
REMEDY = "choose 'auto' or 'numba', or install a gsplat wheel built for this torch and CUDA version"
_LOADING = threading.Lock()
_TENSORS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
_INFO = ("radii", "means2d", "depths", "conics", "opacities")


def _package() -> Path | None:
    """Folder of the installed gsplat, without importing it (newer versions compile on import)."""
    try:
        spec = importlib.util.find_spec("gsplat")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _built(package: Path) -> bool:
    """Whether compiled code exists, for whatever torch: inside the package, or built here before."""
    return any(package.glob("csrc*.so")) or any(package.glob("csrc*.pyd")) or _built_here()


def _prebuilt() -> bool:
    """Whether the package's own compiled code loads; gsplat builds its own where it is missing or for another torch."""
    try:
        from gsplat import csrc  # noqa: F401
    except ImportError:
        return False
    return True


def _built_here() -> bool:
    """Whether gsplat's code lies in torch's folder of extensions that were built on first use."""
    try:
        from torch.utils.cpp_extension import _get_build_directory

        folder = Path(_get_build_directory("gsplat_cuda", False))
    except Exception:
        return False
    return any((folder / f"gsplat_cuda.{ending}").is_file() for ending in ("so", "pyd", "lib"))


def _toolkit() -> bool:
    try:
        from torch.utils.cpp_extension import CUDA_HOME
    except Exception:
        CUDA_HOME = None
    names = ("nvcc", "nvcc.exe")
    return shutil.which("nvcc") is not None or (
        CUDA_HOME is not None and any((Path(CUDA_HOME) / "bin" / name).is_file() for name in names)
    )


def _impediment(device: torch.device) -> str:
    """What rules gsplat out before anything of it is imported, or an empty string."""
    if device.type != "cuda":
        return f"gsplat needs an NVIDIA GPU (CUDA), but the tensors are on {device.type!r}"
    if getattr(torch.version, "hip", None):
        return "gsplat has no build for AMD GPUs (ROCm)"
    if not torch.cuda.is_available():
        return "torch cannot use CUDA here"
    package = _package()
    if package is None:
        return "gsplat is not installed"
    if not _built(package) and not _toolkit():
        return NO_EXTENSION
    return ""


def explain(error: BaseException) -> str:
    """One line for what gsplat raises where its CUDA code is missing, unbuilt or unfit for the GPU."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if "CameraModelType" in text:
        return NO_EXTENSION
    if "gsplat_cuda" in text:
        return f"building gsplat's CUDA code failed, gsplat_cuda was not made ({text})"
    if "no kernel image" in text:
        return "the installed gsplat was built for other GPUs than this one"
    return f"gsplat cannot be used ({type(error).__name__}: {text})"


@cache
def _loading_failure(device_index: int) -> str:
    """Load (building if need be) and try gsplat on one GPU; an empty string, or why it does not work."""
    device = torch.device("cuda", device_index)
    try:
        if not _prebuilt():
            log.warning(LOAD_NOTICE if _built_here() else BUILD_NOTICE)
        from gsplat.cuda._backend import _C

        if _C is None:
            return NO_EXTENSION
        one = torch.ones(1, 3, device=device)
        quats, opacities = torch.ones(1, 4, device=device), torch.ones(1, device=device)
        eye = torch.eye(4, device=device)[None]
        _call(RasterizeCall(one, quats, one, opacities, one, eye, eye[:, :3, :3], 16, 16))
        torch.cuda.synchronize(device)
    except Exception as error:  # imports, compilers and drivers fail in many ways; all of them mean: another renderer
        return explain(error)
    return ""


def unusable_reason(device: torch.device, load: bool = False) -> str:
    """Why gsplat cannot render on `device`, or an empty string.

    With `load` it is imported, built if that is needed (a message is logged first) and tried; without, only what can
    be known without importing it is looked at.
    """
    reason = _impediment(device)
    if reason or not load:
        return reason
    with _LOADING:
        return _loading_failure(torch.cuda.current_device() if device.index is None else device.index)


def _call(call: RasterizeCall, packed: bool = False) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """`gsplat.rasterization` for all views at once; depth is the fourth channel of the result.

    Density control reads the statistics of every Gaussian in every view, which `packed` leaves out; what it would save
    is measured by `python -m benchmarks.gsplat_cuda`.
    """
    from gsplat import rasterization

    colors, viewmats, backgrounds = call.colors, call.viewmats, call.backgrounds
    if call.depth and not call.depth_gradient:
        # gsplat's own depth channel always passes gradients on, so constant depths go in as a colour.
        z = torch.einsum("cj,nj->cn", viewmats[:, 2, :3], call.means.detach()) + viewmats[:, 2, 3, None]
        colors = torch.cat([colors.expand(call.views, -1, -1), z.detach()[..., None]], dim=-1)
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, torch.zeros_like(backgrounds[:, :1])], dim=-1)
    result: tuple[Tensor, Tensor, dict[str, Any]] = rasterization(
        call.means,
        call.quats,
        call.scales,
        call.opacities,
        colors,
        viewmats,
        call.Ks,
        call.width,
        call.height,
        near_plane=call.near,
        far_plane=call.far,
        eps2d=call.eps2d,
        packed=packed,
        backgrounds=backgrounds,
        camera_model="ortho" if call.orthographic else "pinhole",
        render_mode="RGB+D" if call.depth and call.depth_gradient else "RGB",
    )
    return result


def rasterize(call: RasterizeCall) -> RenderOutput:
    """See `facade.rasterize`; computes in float32 and returns the type of `means`."""
    if len(call.means) == 0:
        # gsplat's kernels are not launched for nothing to draw.
        return torch_backend.rasterize(call)
    given = {name: getattr(call, name) for name in _TENSORS}
    singles = replace(call, **{name: x.float().contiguous() for name, x in given.items() if x is not None})
    try:
        image, alphas, meta = _call(singles)
    except (AttributeError, ImportError) as error:
        raise InputError("renderer", "one that works here", f"'gsplat': {explain(error)}", REMEDY) from error
    info = call.info(**{name: meta[name] for name in _INFO})
    image, alphas = image.to(call.means.dtype), alphas.to(call.means.dtype)
    return RenderOutput(image[..., :3], alphas, image[..., 3:] if call.depth else None, info)


GSPLAT = Renderer(
    name="gsplat",
    purpose="the fastest, for NVIDIA GPUs (CUDA)",
    rasterize=rasterize,
    unusable_reason=unusable_reason,
    remedy=REMEDY,
    devices=("cuda",),
)
