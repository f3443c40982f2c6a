"""MV-Adapter (Huang et al., 2412.03632) as a patch of a MODEL, through ComfyUI's own patching.

Nothing of the MODEL is replaced, so LoRAs, other patches, quantised weights and low VRAM keep working: patches read the
normed input of every self-attention and add to its output, others add the features of the camera maps.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.patcher_extension
import comfy.utils
import torch
from torch import Tensor

from ...dreamer_core.errors import InputError
from ...dreamer_core.teachers.moves import nearest_timestep
from ...dreamer_core.teachers.multiview.adapter import MultiViewAdapter
from ...dreamer_core.teachers.multiview.cameras import AZIMUTHS, camera_maps, shifted_sigmas
from ...dreamer_core.teachers.multiview.files import load_adapter

KEY = "dreamerxl_multiview"
GROUP = "dreamerxl_group"
"""Transformer option: the `Group` that is asked for, None for none. Without it a batch is the node's views."""
ACTIVE = "dreamerxl_active"
"""Transformer option, set by the wrapper: `_Active`."""
NORMED = "dreamerxl_normed"
"""Option of one block between its two patches: the normed input of its self-attention."""
ATTENTION = re.compile(
    r"(input|middle|output)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)\.attn1\.to_q\.weight"
)
PIXELS = 8
"""Per side of a latent."""
Place = tuple[str, int, int]
"""Kind of block, its number, and the transformer block in it, as ComfyUI counts them."""


@dataclass(frozen=True)
class Group:
    """Views that are looked at together."""

    azimuths: tuple[float, ...]
    timestep: int | None = None
    """What the UNet is told, where the MODEL's own schedule would say another; None: as it says."""


@dataclass
class _Active:
    """The group of one call of the UNet."""

    views: int
    features: list[Tensor]


@dataclass
class MultiViewPatch:
    """An adapter with what its patches need to know of the UNet."""

    network: MultiViewAdapter
    places: dict[Place, str]
    """The adapter's name of every self-attention."""
    levels: dict[int, int]
    """Input blocks after which a level of the map encoder is added; the last level is the middle's."""
    azimuths: tuple[float, ...] = AZIMUTHS
    """Of a batch that an ordinary sampler draws."""
    patcher: Any = field(default=None)

    def models(self) -> list[Any]:
        """For ComfyUI's model management, which loads the adapter with the MODEL."""
        return [self.patcher]

    def wrap(
        self,
        executor: Any,
        x: Tensor,
        timesteps: Tensor,
        context: Any,
        y: Any,
        control: Any,
        options: dict,
        **more: Any,
    ) -> Tensor:
        """Around the whole UNet: who is in the group, and the features of their camera maps."""
        group: Group | None = options.get(GROUP, Group(self.azimuths))
        if group is not None:
            views, height, width = len(group.azimuths), *x.shape[-2:]
            if len(x) % views or height != width:
                got = f"{len(x)} of {width * PIXELS} x {height * PIXELS}"
                remedy = "set batch_size of the empty latents to the number of azimuths, and width to height"
                raise InputError("latents", f"{views} square pictures, one for each azimuth", got, remedy)
            if group.timestep is not None:
                timesteps = torch.full_like(timesteps, group.timestep)
            maps = camera_maps(group.azimuths, height * PIXELS).to(x)
            repeats = len(x) // views
            features = [f.repeat(repeats, 1, 1, 1) for f in self.network.adapter(maps)]
            options = {**options, ACTIVE: _Active(views, features)}
        result: Tensor = executor(x, timesteps, context, y, control, options, **more)
        return result

    def before_attention(self, n: Tensor, context: Any, value: Any, options: dict) -> tuple[Tensor, Any, Any]:
        """Keeps what a self-attention reads; changes nothing."""
        if ACTIVE in options:
            options[NORMED] = n
        return n, context, value

    def after_attention(self, n: Tensor, options: dict) -> Tensor:
        """Adds what the views of the group see of each other."""
        active: _Active | None = options.get(ACTIVE)
        if active is None:
            return n
        normed = options.pop(NORMED)
        kind, number = options["block"][:2]
        rows = self.network.at(self.places[kind, number, options["block_index"]])
        if normed.shape != n.shape:
            got = f"{tuple(normed.shape)} in place of {tuple(n.shape)}, as tiling makes it"
            raise InputError("model", "a MODEL whose patches keep the shape of self-attention", got, "leave that out")
        return n + rows(normed, active.views, options["n_heads"])

    def after_block(self, h: Tensor, options: dict) -> Tensor:
        """Adds a level's features where its down block ends."""
        active: _Active | None = options.get(ACTIVE)
        level = self.levels.get(options["block"][1])
        return h if active is None or level is None else h + active.features[level].to(h)

    def after_middle(self, given: dict[str, Any]) -> dict[str, Any]:
        """Adds the last level's features, where they have the middle's size, as in every UNet of three levels."""
        active: _Active | None = given["transformer_options"].get(ACTIVE)
        h = given["h"]
        if active is None or active.features[-1].shape != h.shape:
            return given
        return {**given, "h": h + active.features[-1].to(h)}


class RowsPatch:
    """The patch behind self-attention, which brings the adapter into ComfyUI's model management."""

    def __init__(self, patch: MultiViewPatch) -> None:
        self.patch = patch

    def __call__(self, n: Tensor, options: dict) -> Tensor:
        return self.patch.after_attention(n, options)

    def models(self) -> list[Any]:
        return self.patch.models()


@dataclass
class Attached:
    """What a MODEL says of its adapter."""

    patch: MultiViewPatch
    shifted: Any
    """The noise schedule that ordinary samplers use."""
    plain: Any
    """The MODEL's own schedule, patched before; None where it is the checkpoint's."""


def attached(model: Any) -> Attached | None:
    """The adapter of a MODEL."""
    found = model.get_attachment(KEY)
    return found if isinstance(found, Attached) else None


def azimuths_of(model: Any) -> Tensor | None:
    """Degrees of the views of a MODEL's adapter; None without one."""
    found = attached(model)
    return None if found is None else torch.tensor(found.patch.azimuths)


def attach(model: Any, path: str, azimuths: tuple[float, ...]) -> Any:
    """The MODEL with the adapter in a file. Errors: InputError for a file or a MODEL that do not fit."""
    sampling = model.get_model_object("model_sampling")
    known = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    if not known or not isinstance(sampling, comfy.model_sampling.EPS):
        got = f"one that is sampled as {type(sampling).__name__}"
        raise InputError("model", "an SDXL MODEL that predicts eps or v", got, "leave that patch out")
    if attached(model) is not None:
        raise InputError("model", "a MODEL without a multi-view adapter", "one that has one", "use one of the two")
    model = model.clone()
    patch = _patch(model, path, azimuths)
    shifted = copy.deepcopy(sampling)
    shifted.set_sigmas(shifted_sigmas(sampling.sigmas.double().cpu()))
    model.set_attachments(KEY, Attached(patch, shifted, model.object_patches.get("model_sampling")))
    model.add_object_patch("model_sampling", shifted)
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, KEY, patch.wrap)
    model.set_model_attn1_patch(patch.before_attention)
    model.set_model_attn1_output_patch(RowsPatch(patch))
    model.set_model_input_block_patch(patch.after_block)
    model.set_model_patch(patch.after_middle, "middle_block_after_patch")
    return model


def plain_schedule(model: Any) -> Any:
    """A clone of the MODEL with the noise schedule that it had before an adapter was attached."""
    model, found = model.clone(), attached(model)
    if found is not None and model.object_patches.get("model_sampling") is found.shifted:
        if found.plain is None:
            del model.object_patches["model_sampling"]
        else:
            model.object_patches["model_sampling"] = found.plain
    return model


def group_at(azimuths: tuple[float, ...], sigma: float, levels: Tensor) -> Group:
    """A group at a VE noise level, of the adapter's own `levels` [T]."""
    return Group(azimuths, int(nearest_timestep(torch.tensor([sigma], dtype=torch.float64), levels)[0]))


def _patch(model: Any, path: str, azimuths: tuple[float, ...]) -> MultiViewPatch:
    unet, config = model.model.diffusion_model, model.model.model_config.unet_config
    places: dict[Place, str] = {}
    channels: dict[str, int] = {}
    for theirs, ours in comfy.utils.unet_to_diffusers(config).items():
        found = ATTENTION.fullmatch(ours)
        if found is None:
            continue
        place = theirs.removesuffix(".attn1.to_q.weight")
        kind, number, index = found.groups()
        places[kind, 0 if kind == "middle" else int(number), int(index)] = place
        attention = unet.get_submodule(ours.removesuffix(".to_q.weight"))
        channels[place] = attention.heads * attention.dim_head
    blocks = tuple(config["model_channels"] * factor for factor in config["channel_mult"])
    device, offload = mm.get_torch_device(), mm.unet_offload_device()
    dtype = mm.unet_dtype(device=device, supported_dtypes=[torch.float16, torch.bfloat16, torch.float32])
    with torch.inference_mode(False):
        layers = {"operations": comfy.ops.manual_cast, "dtype": dtype, "device": offload}
        network = load_adapter(path, channels, blocks, "adapter", **layers)
    patcher = comfy.model_patcher.ModelPatcher(network, load_device=device, offload_device=offload)
    return MultiViewPatch(network, places, _levels(config), azimuths, patcher)


def _levels(config: dict[str, Any]) -> dict[int, int]:
    """Input block -> level: behind the halving of a block without attention, else behind its last attention."""
    counts, depths = list(config["num_res_blocks"]), list(config["transformer_depth"])
    found, number = {}, 0
    for level, count in enumerate(counts):
        attends = any(depths[:count])
        depths = depths[count:]
        number += count
        last = level == len(counts) - 1
        found[number if attends or last else number + 1] = level
        number += 1  # the halving
    return found
