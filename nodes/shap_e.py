"""Shap-E inside ComfyUI: its folders under models/, its memory, its progress."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch

from ..dreamer_core.errors import InputError
from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.initializers.shap_e import REPOSITORY, ShapEConfig, pipeline_class, shap_e_gaussians

NONE_FOUND = "none in models/diffusers"
BYTES = 4 << 30
"""Asked of model management: an estimate, 650 million weights in float32 and their working memory."""


def shap_e_folders() -> dict[str, Path]:
    """Folders of a ShapEPipeline under models/diffusers, by their path in it."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths("diffusers"):
        for place, folders, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                folders.clear()  # its parts
                if pipeline_class(Path(place)) == "ShapEPipeline":
                    found.setdefault(Path(place).relative_to(root).as_posix(), Path(place))
    return dict(sorted(found.items()))


def make_shape(model: str, config: dict[str, Any], count: int, **placement: Any) -> Gaussians:
    """The Gaussians of Shap-E's shape. Nothing is downloaded. Errors: InputError."""
    folder = shap_e_folders().get(model)
    if folder is None:
        remedy = f"download all files of {REPOSITORY} into models/diffusers/shap-e and reload the page"
        raise InputError("model", "a Shap-E folder under models/diffusers", model or NONE_FOUND, remedy)
    device = mm.get_torch_device()
    settings = ShapEConfig(str(folder), **config)
    bar = comfy.utils.ProgressBar(2 * settings.steps - 1)

    def on_step(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done + 1, total)

    mm.free_memory(BYTES, device)
    with torch.inference_mode(False), torch.no_grad():
        return shap_e_gaussians(settings, count, device, on_step=on_step, **placement)
