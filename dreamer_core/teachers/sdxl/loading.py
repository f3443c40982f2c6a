"""Loads SDXL, from a diffusers folder or a single file, through diffusers' classes and without asking a hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..kinds import few_step_by_name
from ..noise_schedule import PredictionType, schedule_from_config
from ..quiet import quiet_loading
from ..safetensors_header import content_key
from .checkpoints import LOADABLE_MODELS, LOADABLE_VAES, Checkpoint, CheckpointKind, identify, require
from .loras import check_lora, merge_loras
from .multiview import InstalledAdapter
from .parts import EXPECTED, EXPECTED_VAE, Precision, parts_from_file, parts_from_folder
from .predictor import DiffusersSDXL, TextTower, checkpoint_blocks, normal_tensors

__all__ = ["DiffusersSDXL", "load_sdxl"]

log = logging.getLogger(__name__)

SD1_SCALING_FACTOR = 0.18215
DISTILLED_SCHEDULERS = ("LCMScheduler", "TCDScheduler")


def load_sdxl(
    model: str | Path,
    *,
    vae: str | Path | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
    tokenizer: str | Path | None = None,
    device: torch.device | str = "cpu",
    unet_dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
    prediction: PredictionType | None = None,
    zero_snr: bool | None = None,
    channels_last: bool | None = None,
    checkpoint_encoder: bool = False,
    keep_decoder: bool = False,
    max_batch: int | None = None,
    multiview: str | Path | None = None,
) -> DiffusersSDXL:
    """An SDXL with its LoRAs merged, on `device`, ready to predict, encode and read prompts.

    `unet_dtype` None is float16 on CUDA and float32 elsewhere; the text encoders follow it on CUDA. `prediction` and
    `zero_snr` None read the parameterisation and the schedule's end off the checkpoint; `channels_last` None is on for
    CUDA. `checkpoint_encoder` recomputes the encoder's blocks in its backward pass: the same gradient in a fraction of
    the memory. `multiview` is the file of a multi-view adapter.
    Errors: InputError naming --model, --vae, --lora, --tokenizer or --multiview.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    unet_dtype = unet_dtype or (torch.float16 if cuda else torch.float32)
    precision = Precision(unet=unet_dtype, text=unet_dtype if cuda else torch.float32, vae=vae_dtype)
    extra_vae = _require_vae(vae) if vae is not None else None
    found = _require_model(model, has_vae=extra_vae is not None)
    paths = [(Path(path).expanduser(), weight) for path, weight in loras]
    for path, _ in paths:
        check_lora(path)
    with quiet_loading(), normal_tensors(grad=False):
        if found.header is not None:
            parts = parts_from_file(found, found.header, extra_vae, tokenizer, precision)
        else:
            parts = parts_from_folder(found, extra_vae, tokenizer, precision)
        said = {"prediction_type": prediction, "rescale_betas_zero_snr": zero_snr}
        said = {name: value for name, value in said.items() if value is not None}
        schedule = schedule_from_config({**parts.scheduler, **said})
        merge_loras(
            {"unet": parts.unet, "text_encoder": parts.text_encoder, "text_encoder_2": parts.text_encoder_2}, paths
        )
        if parts.vae.config.scaling_factor == SD1_SCALING_FACTOR:
            log.warning("the VAE has the scaling factor of Stable Diffusion 1.x's, which is wrong for SDXL")
        if not keep_decoder:
            parts.vae.decoder = parts.vae.post_quant_conv = None
        for module in (parts.unet, parts.vae, parts.text_encoder, parts.text_encoder_2):
            module.requires_grad_(False).eval().to(device)
        if cuda if channels_last is None else channels_last:
            parts.unet.to(memory_format=torch.channels_last)
            parts.vae.to(memory_format=torch.channels_last)
        if checkpoint_encoder:
            checkpoint_blocks(parts.vae.encoder)
        installed = None if multiview is None else InstalledAdapter.load(parts.unet, multiview)
    encoders = (parts.text_encoder, parts.text_encoder_2)
    return DiffusersSDXL(
        unet=parts.unet,
        vae=parts.vae,
        towers=[TextTower(tokenizer, encoder) for tokenizer, encoder in zip(parts.tokenizers, encoders)],
        schedule=schedule,
        source=_source(found, extra_vae, paths, multiview),
        max_batch=max_batch,
        few_step=_few_step(found.path, parts.scheduler, [str(path.absolute()) for path, weight in paths if weight]),
        multiview=installed,
    )


def _few_step(path: Path, scheduler: Mapping[str, Any], loras: Sequence[str]) -> str:
    """What says that the model was distilled to draw in few steps: its scheduler, or the name of a file."""
    name = str(scheduler.get("_class_name", ""))
    return f"its {name}" if name in DISTILLED_SCHEDULERS else few_step_by_name([str(path.absolute())], loras)


def _require_model(model: str | Path, has_vae: bool) -> Checkpoint:
    accepted = (*LOADABLE_MODELS, CheckpointKind.SDXL_NO_VAE) if has_vae else LOADABLE_MODELS
    return require(identify(model), "--model", EXPECTED, accepted)


def _require_vae(vae: str | Path) -> Checkpoint:
    """A VAE file or folder, a checkpoint that contains one, or a VAE folder's own weights file."""
    found = identify(vae)
    if found.kind is CheckpointKind.SDXL_FOLDER:
        found = identify(found.path / "vae")
    diffusers_named = found.header is not None and found.header.having("encoder.down_blocks.", "encoder.layers.")
    if diffusers_named and found.path.with_name("config.json").is_file():
        found = identify(found.path.parent)
    return require(found, "--vae", EXPECTED_VAE, (*LOADABLE_VAES, CheckpointKind.SDXL))


def _source(
    found: Checkpoint, vae: Checkpoint | None, loras: Sequence[tuple[Path, float]], multiview: str | Path | None
) -> dict[str, Any]:
    """Names and content keys of everything the weights came from."""
    adapter = None if multiview is None else Path(multiview).expanduser()
    more = {} if adapter is None else {"multiview": adapter.name, "multiview_key": _key(adapter)}
    return {
        **more,
        "model": found.path.name,
        "model_key": _key(found.path),
        "vae": vae.path.name if vae else None,
        "vae_key": _key(vae.path) if vae else None,
        "loras": [{"file": p.name, "key": content_key(p), "weight": weight} for p, weight in loras],
    }


def _key(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    return "-".join(content_key(file)[:8] for file in files)
