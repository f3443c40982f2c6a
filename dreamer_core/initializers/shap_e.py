"""Text to shape with Shap-E (Jun and Nichol, arXiv 2305.02463) through diffusers.

The paper starts from Point-E, which has no kept package. Shap-E is its successor by the same authors. Its shape becomes
4,096 points, as many as Point-E gives.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..gaussians import Gaussians
from ..optimize.randomness import step_generator
from ..teachers.quiet import quiet_loading
from .mesh import Mesh
from .placement import upright
from .point_cloud import FITTED_SIZE, PointCloud, gaussians_from_cloud
from .shapes import check_numbers

REPOSITORY = "openai/shap-e"
POINTS = 4096
"""Points taken from the shape, as published for Point-E."""
GRID = 128
"""Cells per side that the surface is searched on; diffusers' default."""
SHAP_E_UP = "+z"
"""Shap-E's objects stand along Z: diffusers' own cameras circle about it, and its guide turns meshes by -90 degrees
about X for glTF. The first of these cameras, which shows the front, is at -Y."""
_GET_IT = f"download all files of {REPOSITORY} where there is a network, and give the folder that holds them"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ShapEConfig:
    """What decides the shape. Errors: InputError for unusable values."""

    model: str
    """A diffusers folder of a ShapEPipeline, or an id on the Hugging Face hub."""
    prompt: str
    """A few words without style or view: "a mug"."""
    guidance_scale: float = 15.0
    """Classifier-free guidance; the example of diffusers and of Shap-E takes 15."""
    steps: int = 64
    """Steps of Heun's method, two evaluations each; the example takes 64."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError("shap-e prompt", "a few words for the object", "an empty text")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 1):
            raise InputError("shap-e cfg", "a guidance scale of at least 1", self.guidance_scale)
        if not 2 <= self.steps <= 1024:
            raise InputError("shap-e steps", "2 to 1024 steps", self.steps)


def shap_e_gaussians(
    config: ShapEConfig,
    count: int,
    device: torch.device,
    *,
    size: float = FITTED_SIZE,
    opacity: float = 0.1,
    up: str = "auto",
    yaw: float = 0.0,
    announce: Callable[[str], None] = lambda text: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Gaussians:
    """`count` Gaussians on and around Shap-E's shape, on the CPU, upright, fitted to `size`; see `shap_e_points`."""
    check_numbers(count=count, size=size, opacity=opacity)
    rotation = upright(SHAP_E_UP if up == "auto" else up, yaw)
    cloud = shap_e_points(config, device, announce=announce, on_step=on_step).turned(rotation)
    generator = step_generator(config.seed, 0, "init")
    return gaussians_from_cloud(cloud, count, generator, size=size, opacity=opacity, field="shap-e prompt")


def shap_e_points(
    config: ShapEConfig,
    device: torch.device,
    *,
    announce: Callable[[str], None] = lambda text: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> PointCloud:
    """4,096 coloured points on the surface of Shap-E's shape, along its own axes (Z up).

    Everything is computed in float32, for the decoder's position encoding needs it, and the networks are released
    before this returns. `on_step(done, total)` is called before each evaluation and may raise to stop.
    Errors: InputError for an unusable model, a failed download, and a prompt that gives no shape.
    """
    try:
        mesh = _mesh(config, device, announce, on_step)
    finally:  # the networks went with the function's variables
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if not (np.isfinite(mesh.vertices).all() and mesh.areas().sum() > 0):
        raise _no_shape(config, "a surface without area")
    return mesh.sample(POINTS, step_generator(config.seed, 0, "shap-e surface"))


def _no_shape(config: ShapEConfig, got: str) -> InputError:
    remedy = "try another seed, a simpler prompt, or check the model's weights"
    return InputError("shap-e prompt", "words that Shap-E makes a shape of", f"{got} from {config.prompt!r}", remedy)


def _mesh(
    config: ShapEConfig,
    device: torch.device,
    announce: Callable[[str], None],
    on_step: Callable[[int, int], None],
) -> Mesh:
    """The decoded surface along Shap-E's axes."""
    pipeline = load_shap_e(config.model, announce).to(device, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    done = 0

    def count_evaluation(*_: object) -> None:
        nonlocal done
        on_step(done, 2 * config.steps - 1)
        done += 1

    hook = pipeline.prior.register_forward_pre_hook(count_evaluation)
    latents = pipeline(
        config.prompt,
        guidance_scale=config.guidance_scale,
        num_inference_steps=config.steps,
        generator=step_generator(config.seed, 0, "shap-e"),
        output_type="latent",
    ).images
    hook.remove()
    if not bool(torch.isfinite(latents).all()):
        raise _no_shape(config, "NaN or inf")
    renderer = pipeline.shap_e_renderer
    del pipeline  # the decoder's grid wants the memory
    try:
        output = renderer.decode_to_mesh(latents[:1], device, grid_size=GRID)
    except (RuntimeError, ValueError) as error:
        if "non-empty" not in str(error):
            raise
        raise _no_shape(config, "an empty space") from error  # diffusers cannot join the colours of no vertices
    rgb = torch.stack([output.vertex_channels[c] for c in "RGB"], dim=-1)
    return Mesh(
        output.verts.cpu().double().numpy(),
        output.faces.cpu().numpy(),
        vertex_rgb=rgb.cpu().double().numpy(),
        linear=True,  # diffusers converts the texture's display values
    )


def load_shap_e(model: str | Path, announce: Callable[[str], None] = lambda text: None) -> Any:
    """A ShapEPipeline from a local folder, or from the hub by an id such as openai/shap-e.

    A folder never touches the network. An id is looked up in the local cache first; a download is announced.
    Errors: InputError for another kind of model, incomplete files, or a download that fails.
    """
    from diffusers import ShapEPipeline

    folder = Path(model).expanduser()
    if folder.exists():
        _check_folder(folder)
        try:
            with quiet_loading():
                return ShapEPipeline.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # diffusers raises many kinds for incomplete or broken files
            got = f"{folder}, which cannot be loaded ({_first_line(error)})"
            raise InputError("shap-e", "a complete Shap-E folder", got, _GET_IT) from error
    if not _HUB_ID.fullmatch(str(model)):
        remedy = f"name a folder that exists, or {REPOSITORY} to download it"
        raise InputError("shap-e", "a diffusers folder or a hub id", model, remedy)
    try:
        with quiet_loading():
            return ShapEPipeline.from_pretrained(str(model), local_files_only=True)
    except Exception:  # not in the cache, or not all of it
        announce(f"{model} is no folder and not in the local cache: downloading it from the Hugging Face hub ...")
    try:
        with quiet_loading():
            return ShapEPipeline.from_pretrained(str(model))
    except Exception as error:  # the hub's client raises many kinds
        got = f"{model}, which could not be downloaded ({_first_line(error)})"
        raise InputError("shap-e", "a model on the Hugging Face hub", got, _GET_IT) from error


def _check_folder(folder: Path) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        raise InputError("shap-e", "a diffusers folder with model_index.json", f"{folder} without one", _GET_IT)
    kind = pipeline_class(folder)
    if kind != "ShapEPipeline":
        raise InputError("shap-e", "a ShapEPipeline, which makes shapes from text", f"{folder}, which is a {kind}")


def pipeline_class(folder: Path) -> str:
    """The class that a diffusers folder names, or "folder of an unknown kind"."""
    try:
        return str(json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "folder of an unknown kind"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
