"""A MODEL on several devices: the copies that ComfyUI's multi-GPU nodes make, and encoders beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import torch

from .encoder import build_encoder

COPIES, POOL = "multigpu_clones", "multigpu_thread_pool"
"""Options of `comfy.samplers.calc_cond_batch`: the MODEL's copy by device, and a thread for each of them."""


def further_devices(model: Any, views: int) -> list[torch.device]:
    """Where a MODEL has copies; none where there are fewer views than devices, so that some would wait."""
    copies = [one for one in model.get_additional_models_with_key("multigpu") if one.is_multigpu_base_clone]
    return [one.load_device for one in copies] if len(copies) < views else []


def encoders_of(vae: Any, devices: Sequence[torch.device]) -> list[comfy.model_patcher.ModelPatcher]:
    """A private encoder for each device, for ComfyUI's model management. Errors: InputError for another kind of VAE."""
    with torch.inference_mode(False):
        offload = mm.vae_offload_device()
        return [comfy.model_patcher.ModelPatcher(build_encoder(vae), device, offload) for device in devices]


def released(encoders: Sequence[comfy.model_patcher.ModelPatcher]) -> None:
    """Give their memory back."""
    for one in encoders:
        mm.unload_model_and_clones(one, all_devices=True)
        one.model.to("meta")
    mm.soft_empty_cache()


def options_on(options: Mapping[str, Any], patcher: Any) -> dict[str, Any]:
    """The options with which ComfyUI computes on one copy's device alone, in the thread that asks."""
    found: dict[str, Any] = comfy.model_patcher.create_model_options_clone(dict(options))
    found.pop(POOL, None)
    found[COPIES] = {patcher.load_device: patcher}
    return found
