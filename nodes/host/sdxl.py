"""A ComfyUI MODEL and VAE as the core's Teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.hooks
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.multigpu
import comfy.patcher_extension
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
from ...dreamer_core.teachers.multiview.cameras import shifted_sigmas
from ...dreamer_core.teachers.multiview.group import check_groups, whole_groups
from ...dreamer_core.teachers.teacher import Request, classifier_free
from .devices import COPIES, POOL, encoders_of, further_devices, options_on, released
from .encoder import KLEncoder, TinyEncoder, as_normal_tensors
from .multiview import GROUP, Attached, attached, group_at, plain_schedule
from .noise import NoiseForm, noise_form

CALC, PRE_CFG = "sampler_calc_cond_batch_function", "sampler_pre_cfg_function"
GUIDANCE = (PRE_CFG, "sampler_cfg_function", "sampler_post_cfg_function")
"""Options of a MODEL that `comfy.samplers.sampling_function` reads."""
SAMPLING = tuple(
    getattr(comfy.patcher_extension.WrappersMP, name) for name in ("OUTER_SAMPLE", "SAMPLER_SAMPLE", "PREDICT_NOISE")
)
"""Kinds of wrappers around what only a sampler does."""


def check_model(model: Any) -> None:
    """Errors: InputError where the MODEL is not a text-conditioned SDXL."""
    kind = type(model.model).__name__ if model is not None else "none"
    remedy = "wire a MODEL from an SDXL checkpoint"
    if model is None or not isinstance(model.model, comfy.model_base.SDXL):
        raise InputError("model", "an SDXL diffusion model", kind, remedy)
    channels = model.model.model_config.unet_config.get("in_channels", 4)
    if channels != 4:
        raise InputError("model", "an SDXL base model (4 input channels)", f"{kind} with {channels}", remedy)


def guidance_patches(model_options: Mapping[str, Any]) -> list[str]:
    """Who made a MODEL's patches of classifier-free guidance, e.g. "RescaleCFG"."""
    found = (model_options.get(name) or [] for name in GUIDANCE)
    functions = (f for one in found for f in (one if isinstance(one, list) else [one]))
    return list(dict.fromkeys(map(_maker, functions)))


def sampling_patches(model: Any) -> list[str]:
    """Who wrapped a MODEL's sampling loop, which score distillation does not have, e.g. "easycache"."""
    found = [(key, f) for kind in SAMPLING for key, made in model.wrappers.get(kind, {}).items() for f in made]
    return list(dict.fromkeys(key if isinstance(key, str) else _maker(f) for key, f in found))


def _maker(function: Any) -> str:
    """The node, function or class behind it."""
    return str(getattr(function, "__qualname__", type(function).__qualname__).partition(".")[0])


def _pairs(requests: Sequence[Request]) -> Iterator[tuple[list[int], tuple[Request | None, Request | None]]]:
    """Calls of at most one positive and one unconditional request at one place, with their indices."""
    left = dict(enumerate(requests))
    while left:
        at, first = next(iter(left.items()))
        del left[at]
        if first.role != "positive":
            yield [at], (None, first)
            continue
        partner = (i for i, r in left.items() if r.role != "positive" and r.x is first.x and r.sigma == first.sigma)
        other = next(partner, None)
        yield ([at], (first, None)) if other is None else ([at, other], (first, left.pop(other)))


@contextmanager
def _clean_failure() -> Iterator[None]:
    """Out of memory leaves the device as ComfyUI leaves it: ready to try again with less."""
    try:
        yield
    except Exception as error:
        if mm.is_oom(error):  # which clears an error that CUDA would raise again
            mm.soft_empty_cache()
        raise


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
        form: NoiseForm = NoiseForm(),  # noqa: B008  frozen
        multiview: Attached | None = None,
    ) -> None:
        self._form, self.multiview = form, multiview
        self._azimuths: Tensor | None = None
        """Of the group that it looks at; None: at single views."""
        self.sigmas = form.levels(model.model_sampling.sigmas)  # once: fetching them waits for a GPU
        """VE sigma(t) [T], ascending, of the MODEL's own schedule."""
        self._model, self._encoder, self._device = model, encoder, device
        self._options, self._sizes, self._max_batch = model_options, dict(sizes), max_batch
        self._home = device
        """Where its network and its encoder are; latents come from `_device`, and go there."""
        self.replicas: tuple[HostSDXL, ...] = ()
        """One for each device, where several share the views of a step; see `optimize.apart`."""

    @property
    def azimuths(self) -> Tensor | None:
        """Degrees of the views of its multi-view adapter's groups; None without one."""
        return None if self.multiview is None else torch.tensor(self.multiview.patch.azimuths)

    def grouped(self, azimuths: Tensor) -> HostSDXL:
        """The teacher of whole groups of views. Errors: InputError for a MODEL without a multi-view adapter."""
        if self.multiview is None:
            raise InputError("model", "a MODEL with a multi-view adapter", "one without", "wire Dreamer XL Multi-View")
        found = copy.copy(self)
        found._azimuths, found.sigmas = azimuths.cpu(), shifted_sigmas(self.sigmas)
        return found

    def on(self, patcher: Any, encoder: torch.nn.Module) -> HostSDXL:
        """The teacher on one of the devices that have a copy of the MODEL, with an encoder that is there."""
        found = copy.copy(self)
        found._options, found._encoder, found._home = options_on(self._options, patcher), encoder, patcher.load_device
        return found

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        """eps = (x - denoised) / sigma, in VE form, of every request; a view's requests go through together.

        Prompt and negative of one place are one call with an entry each, as in ComfyUI's samplers, so that patches see
        which is which and several devices share them. What else is unconditional goes alone, as the second of two.
        """
        parts: list[list[Tensor]] = [[] for _ in requests]
        with _clean_failure():
            for views in self._view_groups(requests[0].x):
                for index, pair in _pairs(requests):
                    mm.throw_exception_if_processing_interrupted()
                    found = self._evaluate(*(None if r is None else r[views] for r in pair))
                    for at, eps in zip(index, found):
                        parts[at].append(eps)
        return [torch.cat(of_request) for of_request in parts]

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        """Classifier-free guidance as ComfyUI's samplers make it, with the MODEL's own guidance patches."""
        if not guidance_patches(self._options):
            return classifier_free(e_positive, e_negative, scale)
        parts = []
        for views in self._view_groups(positive.x):
            mm.throw_exception_if_processing_interrupted()
            parts.append(self._combine(positive[views], negative[views], e_positive[views], e_negative[views], scale))
        return torch.cat(parts)

    def _view_groups(self, x: Tensor) -> list[slice]:
        """Views in groups of which one entry fits into memory; ComfyUI puts entries together as memory allows."""
        size = self._batch_size(x)
        if self._azimuths is not None:
            check_groups(len(x), self._azimuths)
            size = whole_groups(size, len(self._azimuths), len(x))
        return [slice(start, start + size) for start in range(0, len(x), size)]

    def _evaluate(self, positive: Request | None, negative: Request | None) -> list[Tensor]:
        """Noise of the requests that are there, which are at one place."""
        place = positive or negative
        assert place is not None
        with torch.inference_mode():
            x, sigma = self._place(place)
            conds = [self._entry(r, x) for r in (positive, negative)]
            options = self._options_at(place.sigma)
            if positive is None or negative is None or CALC not in options:
                out = comfy.samplers.calc_cond_batch(self._model, conds, x, sigma, options)
            else:
                out = options[CALC](self._arguments(conds, x, sigma, options))
            found = [self._noise(place, d) for d, r in zip(out, (positive, negative)) if r is not None]
        return [eps.clone() for eps in found]  # ordinary tensors

    def _combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        with torch.inference_mode():
            x, sigma = self._place(positive)
            conds = [self._entry(r, x) for r in (positive, negative)]
            options = self._options_at(positive.sigma)
            clean = [positive.x.to(x) - positive.sigma * e.to(x) for e in (e_positive, e_negative)]
            out = [z * self._form.deviation for z in clean]
            for function in options.get(PRE_CFG, []):
                more = {"conds_out": out, "cond_scale": scale, "timestep": sigma}
                out = function({**self._arguments(conds, x, sigma, options), **more})
            guided = comfy.samplers.cfg_function(
                *(self._model, out[0], out[1], scale, x, sigma),
                model_options=options,
                cond=conds[0],
                uncond=conds[1],
            )
            eps = self._noise(positive, guided)
        return eps.clone()

    def _arguments(self, conds: list, x: Tensor, sigma: Tensor, options: dict[str, Any]) -> dict[str, Any]:
        """What ComfyUI hands to patches of guidance."""
        return {"conds": conds, "input": x, "sigma": sigma, "model": self._model, "model_options": options}

    def _options_at(self, sigma: float) -> dict[str, Any]:
        """The MODEL's options; with an adapter they say which group is looked at, if any, and at which timestep."""
        if self.multiview is None:
            return self._options
        group = None
        if self._azimuths is not None:
            group = group_at(tuple(self._azimuths.tolist()), sigma, self.sigmas)
        return {**self._options, "transformer_options": {**self._options["transformer_options"], GROUP: group}}

    def _place(self, request: Request) -> tuple[Tensor, Tensor]:
        """Latents and sigmas [B] in the MODEL's own form."""
        x = self._form.scaled(request.x.to(self._device, torch.float32), request.sigma)
        return x, x.new_full((len(x),), self._form.sigma(request.sigma))

    def _noise(self, request: Request, denoised: Tensor) -> Tensor:
        """eps of what the MODEL says is clean."""
        return (request.x.to(denoised) - denoised / self._form.deviation) / request.sigma

    def _entry(self, request: Request | None, x: Tensor) -> list | None:
        """The request's conditioning as ComfyUI's samplers take it."""
        if request is None:
            return None
        assert request.cond.pooled is not None  # from_comfy refuses a CONDITIONING without
        kind = "positive" if request.role == "positive" else "negative"
        options = {"pooled_output": request.cond.pooled, **self._sizes}
        entry = comfy.sampler_helpers.convert_cond([[request.cond.tokens.to(self._device), options]])
        return comfy.samplers.process_conds(self._model, x, {kind: entry}, self._device)[kind]

    def _batch_size(self, x: Tensor) -> int:
        most = min(x.shape[0], self._max_batch or x.shape[0])
        if mm.is_device_cpu(self._home):
            return most
        free = mm.get_free_memory(self._home)
        per_sample = self._model.memory_required([1, *x.shape[1:]]) * 1.5
        return max(1, min(most, int(free / max(per_sample, 1))))

    def encode(self, images: Tensor) -> Tensor:
        """Latents in the model's scaled space, of unit deviation; differentiable."""
        mm.throw_exception_if_processing_interrupted()
        mm.set_torch_device(self._home)  # of this thread
        with _clean_failure():
            z = self._encoder(images.to(self._home, torch.float32).movedim(-1, 1))
        return self._model.process_latent_in(z) / self._form.deviation


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

    Where ComfyUI's multi-GPU nodes gave the MODEL copies on other devices, and each has a view to work on, the views of
    a step are shared among them, each with an encoder of its own. Otherwise they share prompt and negative of a view.
    Call outside inference mode. Whatever happens inside, the MODEL is handed back as it came.
    Errors: InputError for a MODEL or VAE that is not SDXL's.
    """
    check_model(model)
    patcher = plain_schedule(model)
    form = noise_form(patcher)
    further = further_devices(patcher, views)
    private = encoders_of(vae, [model.load_device, *further])
    encoder, device = private[0].model, model.load_device
    conds: dict[str, list] = {"positive": [{"additional_models": private}]}  # encoders are loaded with the MODEL
    views = views if attached(model) is not None else -(-views // len(private))  # of one device; a group is on one
    options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
    patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
    loaded: list = []
    copies: list = []
    try:
        plan = _plan(encoder, model, views, resolution, memory)
        for one in private:
            one.model.recompute = plan.checkpoint_encoder
        share = CHECKPOINTED_BYTES_PER_PIXEL / ENCODER_BYTES_PER_PIXEL if plan.checkpoint_encoder else 1.0
        encoder_bytes = share * encoder.bytes_per_pixel * resolution**2
        latents = (views, 4, resolution // 8, resolution // 8)
        with torch.inference_mode():
            comfy.sampler_helpers.prepare_model_patcher(patcher, conds, options)
            real, conds, loaded = _load(patcher, conds, options, plan, encoder_bytes, latents)
            comfy.samplers.cast_to_load_options(options, device, patcher.model_dtype())
            copies = comfy.sampler_helpers.prepare_model_patcher_multigpu_clones(patcher, loaded, options)
            for one in (patcher, *copies):
                one.pre_run()
            if copies:
                devices = [one.load_device for one in (patcher, *copies)]
                options[POOL] = comfy.multigpu.MultiGPUThreadPool(devices)
        for one in private:
            as_normal_tensors(one.model)
        options.setdefault("transformer_options", {})["sample_sigmas"] = real.model_sampling.sigmas.flip(0)
        teacher = HostSDXL(real, encoder, device, options, sizes or {}, plan.max_batch, form, attached(model))
        if further:
            at = options[COPIES]
            teacher.replicas = tuple(teacher.on(at[one.load_device], one.model) for one in private)
        yield teacher, plan.recompute_encoder
    finally:
        with torch.inference_mode():
            if POOL in options:
                options.pop(POOL).shutdown()
            for one in (patcher, *copies):
                one.cleanup()
            comfy.sampler_helpers.cleanup_models(conds, loaded)
            comfy.samplers.cast_to_load_options(options, device=patcher.offload_device)
            patcher.restore_hook_patches()
            released(private)


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
