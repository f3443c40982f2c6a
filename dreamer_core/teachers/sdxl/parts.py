"""Reads SDXL's networks and tokenizers from a diffusers folder or a single file, through diffusers and transformers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..noise_schedule import schedule_config_from_header
from ..safetensors_header import Header
from .checkpoints import LOADABLE_VAES, Checkpoint, identify, read_json, require
from .configs import PREFIXES, SCHEDULER_CONFIG, VAE_PREFIX, part_configs, vae_config
from .original_layout import text_2_from_original, with_plain_projection
from .single_file_check import shortcomings
from .tokenizers import load_tokenizers

EXPECTED = "an SDXL diffusers folder or .safetensors checkpoint"
EXPECTED_VAE = "an SDXL VAE: a .safetensors file or a diffusers folder"
REMEDY = "distilled or modified SDXL variants load from their diffusers folder"


@dataclass(frozen=True)
class Precision:
    """The number formats of the parts."""

    unet: torch.dtype
    text: torch.dtype
    vae: torch.dtype


@dataclass
class SDXLParts:
    """What an SDXL consists of: diffusers' and transformers' models, tokenizers, and its scheduler's config."""

    unet: Any
    text_encoder: Any
    text_encoder_2: Any
    vae: Any
    tokenizers: tuple[Any, Any]
    scheduler: Mapping[str, Any]


@contextmanager
def _readable(found: Checkpoint, field: str, expected: str) -> Iterator[None]:
    """Turns what diffusers raises inside, on files it cannot read, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        got = f"{found.looks_like} that cannot be read as one ({found.path.name}): {reason}"
        raise InputError(field, expected, got, REMEDY) from error


def parts_from_folder(
    found: Checkpoint, extra_vae: Checkpoint | None, tokenizer: str | Path | None, precision: Precision
) -> SDXLParts:
    """The parts of a diffusers folder. Errors: InputError."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    folder = found.path
    own_vae = extra_vae or require(identify(folder / "vae"), "--model", "an SDXL VAE in its vae/", LOADABLE_VAES)
    tokenizers = load_tokenizers(tokenizer, [folder])
    vae = load_vae(own_vae, "--vae" if extra_vae else "--model", precision.vae)
    unet = read_json(folder / "unet" / "config.json")
    if unet.get("time_cond_proj_dim") is not None:
        got = f"an LCM whose network reads its guidance scale ({folder.name}: time_cond_proj_dim)"
        raise InputError("--model", EXPECTED, got, "use the base checkpoint with the LCM LoRA")
    with _readable(found, "--model", EXPECTED):
        return SDXLParts(
            unet=_pretrained(UNet2DConditionModel, folder / "unet", precision.unet),
            text_encoder=_pretrained(CLIPTextModel, folder / "text_encoder", precision.text),
            text_encoder_2=_pretrained(CLIPTextModelWithProjection, folder / "text_encoder_2", precision.text),
            vae=vae,
            tokenizers=tokenizers,
            scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        )


def parts_from_file(
    found: Checkpoint, header: Header, extra_vae: Checkpoint | None, tokenizer: str | Path | None, precision: Precision
) -> SDXLParts:
    """The parts of a single file in the original layout. Errors: InputError."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizers = load_tokenizers(tokenizer, [found.path.parent])
    header = with_plain_projection(header)
    with _readable(found, "--model", EXPECTED):
        configs = part_configs(header)
        for part, config in configs.items():
            _require_tensors(found, "--model", EXPECTED, shortcomings(header, part, config, PREFIXES[part]))
    vae = load_vae(extra_vae or found, "--vae" if extra_vae else "--model", precision.vae)
    with _readable(found, "--model", EXPECTED):
        unet = _tensors(found.path, PREFIXES["unet"], precision.unet)
        unet = {PREFIXES["unet"] + name: value for name, value in unet.items()}
        first = _tensors(found.path, PREFIXES["text_encoder"], precision.text)
        second = _tensors(found.path, PREFIXES["text_encoder_2"], precision.text)
        return SDXLParts(
            unet=_single_file(UNet2DConditionModel, unet, configs["unet"], precision.unet),
            text_encoder=_text_model(CLIPTextModel, first, configs["text_encoder"], precision.text),
            text_encoder_2=_text_model(
                CLIPTextModelWithProjection, text_2_from_original(second), configs["text_encoder_2"], precision.text
            ),
            vae=vae,
            tokenizers=tokenizers,
            scheduler={**SCHEDULER_CONFIG, **schedule_config_from_header(header)},
        )


def load_vae(found: Checkpoint, field: str, dtype: torch.dtype) -> Any:
    """The AutoencoderKL or AutoencoderTiny at `found`, which may be a whole checkpoint. Errors: InputError."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    expected = EXPECTED_VAE if field == "--vae" else EXPECTED
    with _readable(found, field, expected):
        if found.header is None:
            tiny = read_json(found.path / "config.json").get("_class_name") == "AutoencoderTiny"
            return _pretrained(AutoencoderTiny if tiny else AutoencoderKL, found.path, dtype)
        prefix = next((p for p in (VAE_PREFIX, "vae.") if found.header.starting(p)), "")
        config = vae_config(found.header.stripped(prefix))
        _require_tensors(found, field, expected, shortcomings(found.header, "vae", config, prefix))
        tensors = {VAE_PREFIX + name: value for name, value in _tensors(found.path, prefix, dtype).items()}
        return _single_file(AutoencoderKL, tensors, config, dtype)


def _require_tensors(found: Checkpoint, field: str, expected: str, shortcoming: str | None) -> None:
    if shortcoming is not None:
        raise InputError(field, expected, f"{found.looks_like} {shortcoming} ({found.path.name})", REMEDY)


def _tensors(path: Path, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors under `prefix`, named without it, in `dtype` where they are numbers; nothing else is read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a dict)
        return {name.removeprefix(prefix): _converted(name, file.get_tensor(name), dtype) for name in names}


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """In `dtype` where it is numbers. Errors: ValueError for weights that are integers."""
    if tensor.is_floating_point():
        return tensor.to(dtype)
    if name.endswith((".weight", ".bias")):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{name} is {kind}: weights that are quantised need scales of their own")
    return tensor


def _single_file(model_class: Any, tensors: dict[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """diffusers' own conversion of original tensors; it takes its config from a folder, so it gets one."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return model_class.from_single_file(tensors, config=folder, torch_dtype=dtype, local_files_only=True)


def _text_model(model_class: Any, tensors: dict[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    from transformers import CLIPTextConfig

    settings = CLIPTextConfig(**config)
    with torch.device("meta"):
        nested = hasattr(model_class(settings), "text_model")  # transformers 5.6 dropped this level from CLIPTextModel
    state = tensors if nested else {name.removeprefix("text_model."): value for name, value in tensors.items()}
    return model_class.from_pretrained(None, config=settings, state_dict=state, torch_dtype=dtype)


def _pretrained(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model from its folder. Errors: ValueError where tensors are missing, which the libraries would make up."""
    model, report = model_class.from_pretrained(
        folder,
        torch_dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        variant=_variant(folder),
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"{folder.name}/ lacks {len(missing)} tensors, first {missing[0]}")
    return model


def _variant(folder: Path) -> str | None:
    """`fp16` where a folder holds only half-precision files, as partial downloads of the hub's layout do."""
    files = [f.name for f in folder.glob("*.safetensors")]
    return "fp16" if files and all(".fp16." in f or ".fp16-" in f for f in files) else None
