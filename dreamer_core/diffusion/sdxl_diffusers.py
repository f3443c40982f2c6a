"""Loads SDXL, from a diffusers folder or a single file, through diffusers' classes and without asking a hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .checkpoints import LOADABLE_MODELS, LOADABLE_VAES, Checkpoint, CheckpointKind, identify, read_json, require
from .noise_schedule import NoiseSchedule, PredictionType, schedule_config_from_header, schedule_from_config
from .quiet import quiet_loading
from .safetensors_header import content_key
from .sdxl_configs import SCHEDULER_CONFIG, VAE_PREFIX, vae_config, write_configs
from .sdxl_loras import check_lora, merge_loras
from .sdxl_predictor import DiffusersSDXL, TextTower, checkpoint_blocks, normal_tensors
from .tokenizers import load_tokenizers

__all__ = ["DiffusersSDXL", "load_sdxl"]

EXPECTED = "an SDXL diffusers folder or .safetensors checkpoint"
EXPECTED_VAE = "an SDXL VAE: a .safetensors file or a diffusers folder"
PARTS = ("unet", "text_encoder", "text_encoder_2")


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
    channels_last: bool = True,
    checkpoint_encoder: bool = False,
    keep_decoder: bool = False,
    max_batch: int | None = None,
) -> DiffusersSDXL:
    """An SDXL with its LoRAs merged, on `device`, ready to predict, encode and read prompts.

    `unet_dtype` None is float16 on CUDA and float32 elsewhere; the text encoders follow it on CUDA. `prediction` None
    reads the parameterisation off the checkpoint. `checkpoint_encoder` recomputes the encoder's blocks in its backward
    pass: the same gradient in a fraction of the memory. Errors: InputError naming --model, --vae, --lora, --tokenizer.
    """
    device = torch.device(device)
    unet_dtype = unet_dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    text_dtype = unet_dtype if device.type == "cuda" else torch.float32
    extra_vae = _require_vae(vae) if vae is not None else None
    found = _require_model(model, has_vae=extra_vae is not None)
    paths = [(Path(path).expanduser(), weight) for path, weight in loras]
    for path, _ in paths:
        check_lora(path, None)
    with quiet_loading(), normal_tensors(grad=False):
        dtypes = {"unet": unet_dtype, "text": text_dtype, "vae": vae_dtype}
        if found.kind in (CheckpointKind.SDXL, CheckpointKind.SDXL_NO_VAE):
            pipeline, config = _from_single_file(found, extra_vae, tokenizer, dtypes)
        else:
            pipeline, config = _from_folder(found, extra_vae, tokenizer, dtypes)
        schedule = schedule_from_config({**config, "prediction_type": prediction} if prediction else config)
        merge_loras(pipeline, paths)
        return _assemble(
            pipeline,
            schedule,
            source=_source(found, extra_vae, paths),
            device=device,
            channels_last=channels_last,
            checkpoint_encoder=checkpoint_encoder,
            keep_decoder=keep_decoder,
            max_batch=max_batch,
        )


def _require_model(model: str | Path, has_vae: bool) -> Checkpoint:
    accepted = (*LOADABLE_MODELS, CheckpointKind.SDXL_NO_VAE) if has_vae else LOADABLE_MODELS
    return require(identify(model), "--model", EXPECTED, accepted)


def _require_vae(vae: str | Path) -> Checkpoint:
    found = identify(vae)
    if found.kind is CheckpointKind.SDXL_FOLDER:
        found = identify(found.path / "vae")
    return require(found, "--vae", EXPECTED_VAE, (*LOADABLE_VAES, CheckpointKind.SDXL))


def _from_folder(
    found: Checkpoint, extra_vae: Checkpoint | None, tokenizer: str | Path | None, dtypes: dict[str, torch.dtype]
) -> tuple[Any, dict[str, Any]]:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    folder = found.path
    classes = (UNet2DConditionModel, CLIPTextModel, CLIPTextModelWithProjection)
    kinds = ("unet", "text", "text")
    parts: dict[str, Any] = {}
    try:
        for name, part_class, kind in zip(PARTS, classes, kinds):
            parts[name] = part_class.from_pretrained(
                folder / name,
                torch_dtype=dtypes[kind],
                local_files_only=True,
                use_safetensors=True,
                variant=_variant(folder / name),
            )
        parts["vae"] = _load_vae(extra_vae or identify(folder / "vae"), dtypes["vae"])
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unreadable("--model", EXPECTED, found, error) from error
    tokenizers = load_tokenizers(tokenizer, [folder])
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    pipeline = StableDiffusionXLPipeline(
        **parts, tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], scheduler=_scheduler(), add_watermarker=False
    )
    return pipeline, config


def _from_single_file(
    found: Checkpoint, extra_vae: Checkpoint | None, tokenizer: str | Path | None, dtypes: dict[str, torch.dtype]
) -> tuple[Any, dict[str, Any]]:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    assert found.header is not None
    tokenizers = load_tokenizers(tokenizer, [found.path.parent])
    vae = _load_vae(extra_vae or found, dtypes["vae"])
    with tempfile.TemporaryDirectory() as name:
        try:
            write_configs(found.header, Path(name))
            unet = UNet2DConditionModel.from_single_file(
                str(found.path), config=name, subfolder="unet", torch_dtype=dtypes["unet"], local_files_only=True
            )
            pipeline = StableDiffusionXLPipeline.from_single_file(
                str(found.path),
                config=name,
                unet=unet,
                vae=vae,
                tokenizer=tokenizers[0],
                tokenizer_2=tokenizers[1],
                scheduler=_scheduler(),
                torch_dtype=dtypes["text"],
                local_files_only=True,
                add_watermarker=False,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _unreadable("--model", EXPECTED, found, error) from error
    for part in PARTS:
        _require_complete(getattr(pipeline, part), part, "--model", found)
    return pipeline, {**SCHEDULER_CONFIG, **schedule_config_from_header(found.header)}


def _load_vae(found: Checkpoint, dtype: torch.dtype) -> Any:
    """The AutoencoderKL or AutoencoderTiny at `found`, which may be a whole checkpoint."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    if found.header is None:
        config = read_json(found.path / "config.json")
        vae_class = AutoencoderTiny if config["_class_name"] == "AutoencoderTiny" else AutoencoderKL
        return vae_class.from_pretrained(
            found.path, torch_dtype=dtype, local_files_only=True, use_safetensors=True, variant=_variant(found.path)
        )
    prefix = next((p for p in (VAE_PREFIX, "vae.") if found.header.starting(p)), "")
    inner = found.header.stripped(prefix) if prefix else found.header
    with tempfile.TemporaryDirectory() as name:
        try:
            config = vae_config(inner)
            (Path(name) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            vae = AutoencoderKL.from_single_file(str(found.path), config=name, torch_dtype=dtype, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _unreadable("--vae", EXPECTED_VAE, found, error) from error
    _require_complete(vae, "vae", "--vae", found)
    return vae


def _variant(folder: Path) -> str | None:
    """ "fp16" where a folder holds only half-precision files, as partial downloads of the hub's layout do."""
    files = [f.name for f in folder.glob("*.safetensors")]
    return "fp16" if files and all(".fp16." in f or ".fp16-" in f for f in files) else None


def _scheduler() -> Any:
    """diffusers' pipeline wants a scheduler to be complete; it is never asked."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler()


def _unreadable(field: str, expected: str, found: Checkpoint, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
    got = f"{found.looks_like} that cannot be read as one ({found.path.name}): {reason}"
    return InputError(field, expected, got, "distilled or modified SDXL variants load from their diffusers folder")


def _require_complete(module: nn.Module, part: str, field: str, found: Checkpoint) -> None:
    absent = [name for name, p in module.named_parameters() if p.device.type == "meta"]
    if absent:
        raise InputError(
            field,
            EXPECTED,
            f"{found.looks_like} whose {part} lacks {len(absent)} tensors, first {absent[0]} ({found.path.name})",
            "distilled or modified SDXL variants load from their diffusers folder",
        )


def _source(found: Checkpoint, vae: Checkpoint | None, loras: Sequence[tuple[Path, float]]) -> dict[str, Any]:
    """Names and content keys of everything the weights came from."""
    return {
        "model": found.path.name,
        "model_key": _key(found.path),
        "vae": vae.path.name if vae else None,
        "vae_key": _key(vae.path) if vae else None,
        "loras": [{"file": p.name, "key": content_key(p), "weight": weight} for p, weight in loras],
    }


def _key(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    return "-".join(content_key(file)[:8] for file in files)


def _assemble(
    pipeline: Any,
    schedule: NoiseSchedule,
    *,
    source: dict[str, Any],
    device: torch.device,
    channels_last: bool,
    checkpoint_encoder: bool,
    keep_decoder: bool,
    max_batch: int | None,
) -> DiffusersSDXL:
    unet, vae = pipeline.unet, pipeline.vae
    if not keep_decoder:
        vae.decoder = None
        vae.post_quant_conv = None
    if checkpoint_encoder:
        checkpoint_blocks(vae.encoder)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    towers = [
        TextTower(pipeline.tokenizer, pipeline.text_encoder),
        TextTower(pipeline.tokenizer_2, pipeline.text_encoder_2),
    ]
    for module in (unet, vae, *(tower.model for tower in towers)):
        module.requires_grad_(False).eval().to(device)
    unet.to(memory_format=layout)
    vae.to(memory_format=layout)
    return DiffusersSDXL(unet=unet, vae=vae, towers=towers, schedule=schedule, source=source, max_batch=max_batch)
