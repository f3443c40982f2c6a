"""A ComfyUI MODEL and VAE as the core's Teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.hooks
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...dreamer_core.errors import InputError
from ...dreamer_core.optimize.memory import (
    CHECKPOINTED_BYTES_PER_PIXEL,
    ENCODER_BYTES_PER_PIXEL,
    MemoryMode,
    MemoryPlan,
    plan_memory,
)
from ...dreamer_core.teachers.teacher import Conditioning
from .encoder import KLEncoder, TinyEncoder, as_normal_tensors, build_encoder

ENCODER_KEY = "dreamer_xl_encoder"
"""Under which the private encoder travels with the MODEL through model management."""


def check_model(model: Any) -> None:
    """Errors: InputError where the MODEL is not a text-conditioned SDXL."""
    kind = type(model.model).__name__ if model is not None else "none"
    remedy = "wire a MODEL from an SDXL checkpoint"
    if model is None or not isinstance(model.model, comfy.model_base.SDXL):
        raise InputError("model", "an SDXL diffusion model", kind, remedy)
    channels = model.model.model_config.unet_config.get("in_channels", 4)
    if channels != 4:
        raise InputError("model", "an SDXL base model (4 input channels)", f"{kind} with {channels}", remedy)


class HostSDXL:
    """The teacher while it is loaded; made by `loaded_teacher`."""

    def __init__(
        self,
        model: comfy.model_base.BaseModel,
        encoder: torch.nn.Module,
        device: torch.device,
        model_options: dict[str, Any],
        sizes: Mapping[str, int],
        max_batch: int | None = None,
    ) -> None:
        self._model, self._encoder, self._device = model, encoder, device
        self._options, self._sizes, self._max_batch = model_options, dict(sizes), max_batch

    @property
    def sigmas(self) -> Tensor:
        """sigma(t) [T], ascending, of the MODEL's own schedule."""
        return self._model.model_sampling.sigmas.detach().cpu().double().clone()  # MPS has no float64

    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """eps = (x - denoised) / sigma, as many samples at a time as memory allows."""
        parts = []
        size = self._batch_size(x)
        for start in range(0, x.shape[0], size):
            rows = slice(start, start + size)
            mm.throw_exception_if_processing_interrupted()
            parts.append(self._eps(x[rows], sigma[rows], cond[rows]))
        return torch.cat(parts)

    def _eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        assert cond.pooled is not None  # from_comfy refuses a CONDITIONING without
        with torch.inference_mode():
            x, sigma = x.to(self._device, torch.float32), sigma.to(self._device, torch.float32)
            options = {"pooled_output": cond.pooled.to(self._device), **self._sizes}
            entry = comfy.sampler_helpers.convert_cond([[cond.tokens.to(self._device), options]])
            conds = comfy.samplers.process_conds(self._model, x, {"positive": entry}, self._device)
            (denoised,) = comfy.samplers.calc_cond_batch(self._model, [conds["positive"]], x, sigma, self._options)
            eps = (x - denoised) / sigma[:, None, None, None]
        return eps.clone()  # an ordinary tensor

    def _batch_size(self, x: Tensor) -> int:
        most = min(x.shape[0], self._max_batch or x.shape[0])
        if mm.is_device_cpu(self._device):
            return most
        free = mm.get_free_memory(self._device)
        per_sample = self._model.memory_required([1, *x.shape[1:]]) * 1.5
        return max(1, min(most, int(free / max(per_sample, 1))))

    def encode(self, images: Tensor) -> Tensor:
        """Latents in the model's scaled space; differentiable."""
        mm.throw_exception_if_processing_interrupted()
        z = self._encoder(images.to(self._device, torch.float32).movedim(-1, 1))
        return self._model.process_latent_in(z)


@contextmanager
def loaded_teacher(
    model: Any,
    vae: Any,
    *,
    views: int,
    resolution: int,
    sizes: Mapping[str, int] | None = None,
    memory: MemoryMode = "auto",
) -> Iterator[tuple[HostSDXL, bool]]:
    """The teacher, loaded through ComfyUI's model management, and whether views should be encoded one at a time.

    Call outside inference mode. Whatever happens inside, the MODEL is handed back as it came.
    Errors: InputError for a MODEL or VAE that is not SDXL's.
    """
    check_model(model)
    with torch.inference_mode(False):
        encoder = build_encoder(vae)
    private = comfy.model_patcher.ModelPatcher(
        encoder, load_device=model.load_device, offload_device=mm.vae_offload_device()
    )
    patcher = model.clone()
    patcher.set_additional_models(ENCODER_KEY, [private])
    conds: dict[str, list] = {"positive": []}
    options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
    patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
    loaded: list = []
    try:
        plan = _plan(encoder, model, views, resolution, memory)
        encoder.recompute = plan.checkpoint_encoder
        share = CHECKPOINTED_BYTES_PER_PIXEL / ENCODER_BYTES_PER_PIXEL if plan.checkpoint_encoder else 1.0
        encoder_bytes = share * encoder.bytes_per_pixel * resolution**2
        latents = (views, 4, resolution // 8, resolution // 8)
        with torch.inference_mode():
            comfy.sampler_helpers.prepare_model_patcher(patcher, conds, options)
            real, conds, loaded = _load(patcher, conds, options, plan, encoder_bytes, latents)
            comfy.samplers.cast_to_load_options(options, model.load_device, patcher.model_dtype())
            patcher.pre_run()
        as_normal_tensors(encoder)
        options.setdefault("transformer_options", {})["sample_sigmas"] = real.model_sampling.sigmas.flip(0)
        yield HostSDXL(real, encoder, model.load_device, options, sizes or {}, plan.max_batch), plan.recompute_encoder
    finally:
        with torch.inference_mode():
            patcher.cleanup()
            comfy.sampler_helpers.cleanup_models(conds, loaded)
            comfy.samplers.cast_to_load_options(options, device=patcher.offload_device)
            patcher.restore_hook_patches()
            patcher.remove_additional_models(ENCODER_KEY)
            mm.unload_model_and_clones(private, all_devices=True)
            encoder.to("meta")
            mm.soft_empty_cache()


def _plan(encoder: KLEncoder | TinyEncoder, model: Any, views: int, resolution: int, memory: MemoryMode) -> MemoryPlan:
    """What to keep and what to compute twice, by the memory that model management can make free beside the UNet."""
    return plan_memory(
        memory,
        _room(model),
        resolution=resolution,
        views=views,
        encoder_bytes_per_pixel=encoder.bytes_per_pixel,
    )


def _room(model: Any) -> int:
    """Bytes left beside the UNet on its device, once model management has put other models away."""
    device = model.load_device
    free = mm.get_free_memory(device)
    if mm.is_device_cpu(device):  # the UNet's weights are there already
        return int(free)
    held = sum(entry.model_loaded_memory() for entry in mm.current_loaded_models if entry.device == device)
    # Under --lowvram and the like part of the UNet stays away: there is some room in any case.
    return int(max(free + held - model.model_size() - mm.extra_reserved_memory(), mm.get_total_memory(device) / 4))


def _load(
    patcher: Any,
    conds: dict[str, list],
    options: dict[str, Any],
    plan: MemoryPlan,
    encoder_bytes: float,
    latents: tuple[int, int, int, int],
) -> tuple[comfy.model_base.BaseModel, dict[str, list], list]:
    """Load UNet and encoder together, then make sure of the memory that the backward pass will need."""
    real, conds, loaded = comfy.sampler_helpers.prepare_sampling(patcher, latents, conds, options)
    if not mm.is_device_cpu(patcher.load_device):
        views = latents[0]
        encoder_bytes *= 1 if plan.recompute_encoder else views
        needed = encoder_bytes + real.memory_required([3 * views, *latents[1:]])
        minimum = encoder_bytes + real.memory_required([1, *latents[1:]])
        mm.load_models_gpu([patcher, *loaded], memory_required=needed, minimum_memory_required=minimum)
    return real, conds, loaded
