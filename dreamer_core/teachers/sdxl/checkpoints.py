"""Says what a model file or folder is, from its header or its JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..safetensors_header import BrokenFileError, Header, read_header


class CheckpointKind(Enum):
    """What a path turned out to be; the value is how an error message calls it."""

    SDXL = "an SDXL checkpoint"
    SDXL_FOLDER = "an SDXL diffusers folder"
    SDXL_UNET = "an SDXL UNet alone, without text encoders and VAE"
    SDXL_NO_TEXT = "an SDXL checkpoint without its text encoders"
    SDXL_NO_VAE = "an SDXL checkpoint without its VAE"
    SDXL_EDIT = "an SDXL inpainting or editing checkpoint (its UNet takes more than 4 channels)"
    SDXL_REFINER = "the SDXL refiner"
    SDXL_EDM = "an SDXL checkpoint of the EDM kind (CosXL, Playground v2.5)"
    SD1 = "a Stable Diffusion 1.x checkpoint"
    SD2 = "a Stable Diffusion 2.x checkpoint"
    SD3 = "a Stable Diffusion 3 checkpoint"
    FLUX = "a Flux checkpoint"
    OTHER_MODEL = "a diffusion model of another family"
    QUANTISED = "a quantised checkpoint whose weights need their own scales"
    LORA = "a LoRA"
    VAE = "a VAE"
    VAE_FOLDER = "a VAE folder"
    TINY_VAE = "a tiny VAE (TAESD)"
    OTHER_VAE = "a VAE of another family (not 4 latent channels)"
    CONTROLNET = "a ControlNet or adapter"
    TEXT_ENCODER = "a text encoder alone"
    EMBEDDING = "a textual inversion embedding"
    PICKLE = "a pickled PyTorch file"
    GGUF = "a GGUF file"
    PLY = "a PLY file of points or Gaussians"
    BROKEN = "a broken file"
    MISSING = "a path that does not exist"
    EMPTY_FOLDER = "an empty folder"
    OTHER_FOLDER = "a folder that is not a diffusers model"
    UNKNOWN = "a safetensors file of an unknown kind"


LOADABLE_MODELS = (CheckpointKind.SDXL, CheckpointKind.SDXL_FOLDER)
LOADABLE_VAES = (CheckpointKind.VAE, CheckpointKind.VAE_FOLDER)


@dataclass(frozen=True)
class Checkpoint:
    """A path, what it is, and its tensors' shapes where it is a `.safetensors` file."""

    path: Path
    kind: CheckpointKind
    looks_like: str
    """The kind in words, with whatever more could be read."""
    header: Header | None = None


def identify(path: str | Path) -> Checkpoint:
    """What the file or folder at `path` is; never raises for its content and loads no tensor."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _identify_folder(path)
    if not path.exists():
        return _plain(path, CheckpointKind.MISSING)
    try:
        header = read_header(path)
    except (BrokenFileError, OSError) as error:
        kinds = (CheckpointKind.PICKLE, CheckpointKind.GGUF, CheckpointKind.PLY)
        kind = next((k for k in kinds if k.value == str(error)), CheckpointKind.BROKEN)
        return Checkpoint(path, kind, str(error))
    kind = identify_tensors(header)
    return Checkpoint(path, kind, kind.value, header)


def _plain(path: Path, kind: CheckpointKind, detail: str = "") -> Checkpoint:
    return Checkpoint(path, kind, f"{kind.value}: {detail}" if detail else kind.value)


def identify_tensors(header: Header) -> CheckpointKind:
    """The kind that the names and shapes of the tensors belong to."""
    if header.having(".lora_down.", ".lora_A.", "_lora.down.", ".lora.down.", ".lora_linear_layer.down."):
        return CheckpointKind.LORA
    if header.having("hada_w1_a", "lokr_w1", "lokr_w2", "oft_blocks", "oft_diag") or header.starting("lora_unet_"):
        return CheckpointKind.LORA
    if header.having("control_model.", "input_hint_block.", "controlnet_", "adapter.body.", "ip_adapter."):
        return CheckpointKind.CONTROLNET
    if header.starting("model.diffusion_model.input_blocks."):
        return _identify_original_unet(header)
    if header.starting("down_blocks.") and "conv_in.weight" in header:
        return _identify_diffusers_unet(header)
    if header.having("joint_blocks.", "attn.add_k_proj.") and not header.having("single_transformer_blocks."):
        return CheckpointKind.SD3
    if header.having("double_blocks.", "single_transformer_blocks."):
        return CheckpointKind.FLUX
    if header.starting("model.diffusion_model.") or header.having("transformer_blocks.", "blocks.0.self_attn."):
        return CheckpointKind.OTHER_MODEL
    return _identify_part(header)


def _context_dim(header: Header) -> int | None:
    """Width of the text embedding that cross-attention reads."""
    return next((_side(s, 1) for n, s in header.shapes.items() if n.endswith("attn2.to_k.weight")), None)


def _side(shape: tuple[int, ...], dimension: int) -> int | None:
    """None where a file's tensor has fewer dimensions than its name promises."""
    return shape[dimension] if dimension < len(shape) else None


def _identify_original_unet(header: Header) -> CheckpointKind:
    context = _context_dim(header)
    unet = header.stripped("model.diffusion_model.")
    if header.having(".scale_weight", "scaled_fp8", ".weight_scale"):
        return CheckpointKind.QUANTISED
    if "label_emb.0.0.weight" not in unet or context == 1024:
        return CheckpointKind.SD2 if context == 1024 else CheckpointKind.SD1
    text = [header.starting(f"conditioner.embedders.{i}.") for i in (0, 1)]
    if context == 1280 or text == [True, False]:
        return CheckpointKind.SDXL_REFINER
    if "edm_mean" in header or "edm_vpred.sigma_max" in header:
        return CheckpointKind.SDXL_EDM
    if _side(unet.shapes.get("input_blocks.0.0.weight", ()), 1) != 4:
        return CheckpointKind.SDXL_EDIT
    vae = header.starting("first_stage_model.encoder.")
    if not any(text):
        return CheckpointKind.SDXL_NO_TEXT if vae else CheckpointKind.SDXL_UNET
    return CheckpointKind.SDXL if vae else CheckpointKind.SDXL_NO_VAE


def _identify_diffusers_unet(header: Header) -> CheckpointKind:
    context = _context_dim(header)
    if "add_embedding.linear_1.weight" in header and context != 1280:
        return CheckpointKind.SDXL_UNET
    if "add_embedding.linear_1.weight" in header:
        return CheckpointKind.SDXL_REFINER
    known = {768: CheckpointKind.SD1, 1024: CheckpointKind.SD2}
    return known.get(context or 0, CheckpointKind.OTHER_MODEL)


def _identify_part(header: Header) -> CheckpointKind:
    """A VAE, a text encoder or an embedding that came without a model."""
    for prefix in ("", "first_stage_model.", "vae."):
        out = header.shapes.get(f"{prefix}encoder.conv_out.weight")
        if out is not None:
            return CheckpointKind.VAE if len(out) == 4 and out[0] == 8 else CheckpointKind.OTHER_VAE
    if header.starting("encoder.layers.") and header.starting("decoder.layers."):
        return CheckpointKind.TINY_VAE
    if header.having("encoder.layers.0.self_attn.", "transformer.resblocks.", "layer.0.SelfAttention.", "mlp.fc1."):
        return CheckpointKind.TEXT_ENCODER
    if 0 < len(header) <= 4 and header.having("emb_params", "clip_g", "clip_l", "string_to_param"):
        return CheckpointKind.EMBEDDING
    return CheckpointKind.UNKNOWN


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is absent or holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


PIPELINES: Mapping[str, CheckpointKind] = {
    "StableDiffusionXL": CheckpointKind.SDXL_FOLDER,
    "StableDiffusion3": CheckpointKind.SD3,
    "StableDiffusion": CheckpointKind.SD1,
    "Flux": CheckpointKind.FLUX,
}


def _identify_folder(path: Path) -> Checkpoint:
    index = read_json(path / "model_index.json")
    if not index:
        return _identify_part_folder(path)
    pipeline = str(index.get("_class_name", "without a _class_name"))
    kind = next((k for start, k in PIPELINES.items() if pipeline.startswith(start)), CheckpointKind.OTHER_MODEL)
    unet = read_json(path / "unet" / "config.json")
    if kind is CheckpointKind.SDXL_FOLDER:
        return _identify_sdxl_folder(path, index, unet)
    if kind is CheckpointKind.SD1 and unet.get("cross_attention_dim") == 1024:
        kind = CheckpointKind.SD2
    return Checkpoint(path, kind, f"{kind.value}: a diffusers folder of {pipeline}")


def _identify_part_folder(path: Path) -> Checkpoint:
    if not any(path.iterdir()):
        return _plain(path, CheckpointKind.EMPTY_FOLDER)
    config = read_json(path / "config.json")
    name = str(config.get("_class_name", ""))
    if name in ("AutoencoderKL", "AutoencoderTiny"):
        if config.get("latent_channels") != 4:
            return _plain(path, CheckpointKind.OTHER_VAE)
        return _check_weights(path, CheckpointKind.VAE_FOLDER, [path])
    if name == "UNet2DConditionModel":
        return _plain(path, CheckpointKind.SDXL_UNET)
    files = sorted(p.name for p in path.glob("*.safetensors"))
    detail = f"it has no model_index.json, but {files[0]}; give that file itself" if files else ""
    return _plain(path, CheckpointKind.OTHER_FOLDER, detail or "it has no model_index.json")


def _identify_sdxl_folder(path: Path, index: Mapping[str, Any], unet: Mapping[str, Any]) -> Checkpoint:
    if unet.get("cross_attention_dim") == 1280 or index.get("text_encoder") in (None, [None, None]):
        return _plain(path, CheckpointKind.SDXL_REFINER)
    if unet.get("in_channels", 4) != 4:
        return _plain(path, CheckpointKind.SDXL_EDIT)
    scheduler = read_json(path / "scheduler" / "scheduler_config.json")
    if "EDM" in str(scheduler.get("_class_name", "")):
        return _plain(path, CheckpointKind.SDXL_EDM)
    parts = [path / name for name in ("unet", "vae", "text_encoder", "text_encoder_2")]
    gone = [p.name for p in parts if not read_json(p / "config.json")]
    gone += [n for n in ("tokenizer", "tokenizer_2") if not (path / n).is_dir()]
    if gone == ["vae"]:
        return _check_weights(path, CheckpointKind.SDXL_NO_VAE, [p for p in parts if p.name != "vae"])
    if gone:
        detail = f"an SDXL folder without {', '.join(gone)}"
        return Checkpoint(path, CheckpointKind.OTHER_FOLDER, detail)
    return _check_weights(path, CheckpointKind.SDXL_FOLDER, parts)


def _check_weights(path: Path, kind: CheckpointKind, parts: list[Path]) -> Checkpoint:
    """`kind`, unless the weights of one of its parts are missing, pickled or cut short."""
    for part in parts:
        files = sorted(part.glob("*.safetensors"))
        if not files:
            pickled = any(part.glob("*.bin"))
            broken = CheckpointKind.PICKLE if pickled else CheckpointKind.OTHER_FOLDER
            detail = "only .bin weights" if pickled else "no .safetensors weights"
            return Checkpoint(path, broken, f"a folder with {detail} in {part.name}/")
        for file in files:
            try:
                read_header(file)
            except (BrokenFileError, OSError) as error:
                return Checkpoint(path, CheckpointKind.BROKEN, f"{part.name}/{file.name}: {error}")
    return _plain(path, kind)


REMEDIES: Mapping[CheckpointKind, str] = {
    CheckpointKind.PICKLE: "convert it to .safetensors first; pickles can run code and are never opened",
    CheckpointKind.GGUF: "use the original .safetensors checkpoint",
    CheckpointKind.BROKEN: "download it again",
    CheckpointKind.MISSING: "check the path",
    CheckpointKind.QUANTISED: "use the fp16 checkpoint",
    CheckpointKind.PLY: "a start shape is given with --init",
    CheckpointKind.LORA: "LoRAs are given with --lora beside an SDXL checkpoint",
    CheckpointKind.VAE: "an extra VAE is given with --vae beside an SDXL checkpoint",
    CheckpointKind.VAE_FOLDER: "an extra VAE is given with --vae beside an SDXL checkpoint",
    CheckpointKind.SDXL_NO_VAE: "give one with --vae, for instance SDXL's sdxl_vae.safetensors",
    CheckpointKind.TINY_VAE: "give its diffusers folder, with config.json, instead",
    CheckpointKind.SDXL_REFINER: "use the base checkpoint",
}


def require(found: Checkpoint, field: str, expected: str, accepted: tuple[CheckpointKind, ...]) -> Checkpoint:
    """`found` if its kind is one of `accepted`. Errors: InputError under `field` with what came and what to do."""
    if found.kind in accepted:
        return found
    remedy = REMEDIES.get(found.kind, f"use {expected}")
    raise InputError(field, expected, f"{found.looks_like} ({found.path.name or found.path})", remedy)
