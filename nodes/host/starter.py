"""The built-in starter, an SDXL in miniature in the diffusers layout, as a genuine MODEL, CLIP and VAE.

Everything is built from ComfyUI's own classes with smaller sizes; none of its registries or files change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn

from ...dreamer_core.errors import InputError
from .taesd import WIDTH, resized

FOLDER = Path(__file__).resolve().parents[2] / "starter" / "checkpoint"
LORAS = FOLDER.parent / "lora"
ADAPTER = FOLDER / "multiview.safetensors"
"""Its multi-view adapter."""


def offer_loras() -> None:
    """Let ComfyUI's LoRA loaders list the starter's LoRAs behind the user's own."""
    if LORAS.is_dir():
        folder_paths.add_model_folder_path("loras", str(LORAS))


def load_starter(folder: Path = FOLDER, *, disable_dynamic: bool = False) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE. Errors: InputError where the folder is missing or incomplete."""
    if not (folder / "model_index.json").is_file():
        raise InputError(
            "checkpoint",
            "the built-in starter",
            f"no model at {folder.name}",
            "install the pack with its starter/checkpoint folder, or choose an SDXL checkpoint",
        )
    return _model(folder, disable_dynamic), _clip(folder, disable_dynamic), _vae(folder)


def _weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a diffusers or transformers component."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError("checkpoint", "a complete starter", f"no weights in {folder.name}", "install it again")
    return comfy.utils.load_torch_file(str(files[0]))


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def unet_config(config: dict[str, Any]) -> dict[str, Any]:
    """ComfyUI's arguments of the UNet that a diffusers configuration describes."""
    channels, per_level = config["block_out_channels"], config["layers_per_block"]
    depths = config["transformer_layers_per_block"]
    depths = [depths] * len(channels) if isinstance(depths, int) else depths
    kinds = config["down_block_types"]
    down = [d if "CrossAttn" in k else 0 for d, k in zip(depths, kinds)]
    return {
        "image_size": 32,
        "use_checkpoint": False,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_classes": "sequential",
        "adm_in_channels": config["projection_class_embeddings_input_dim"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "num_res_blocks": [per_level] * len(channels),
        "channel_mult": [c // channels[0] for c in channels],
        "transformer_depth": [d for d in down for _ in range(per_level)],
        "transformer_depth_output": [d for d in down for _ in range(per_level + 1)],
        "transformer_depth_middle": depths[-1],
        "use_linear_in_transformer": True,
        "context_dim": config["cross_attention_dim"],
        "use_temporal_resblock": False,
        "use_temporal_attention": False,
    }


class StarterSDXL(comfy.supported_models.SDXL):
    """SDXL with the sizes of one instance instead of the class's."""

    unet_config: dict[str, Any] = {}  # noqa: RUF012  ComfyUI's own convention


def _starter_patcher(folder: Path, disable_dynamic: bool = False) -> Any:
    """What ComfyUI calls when it wants the same MODEL without dynamic memory."""
    return _model(Path(folder), disable_dynamic)


def _model(folder: Path, disable_dynamic: bool) -> Any:
    config = unet_config(_config(folder / "unet"))
    source = _weights(folder / "unet")
    names = comfy.utils.unet_to_diffusers(config)
    weights = {ours: source[theirs] for theirs, ours in names.items() if theirs in source}
    unknown = set(source) - set(names)
    if unknown:
        raise InputError("checkpoint", "a starter UNet laid out like SDXL's", f"also {sorted(unknown)[0]}")
    settings = StarterSDXL(config)
    parameters = sum(v.numel() for v in weights.values())
    dtype = mm.unet_dtype(
        model_params=parameters,
        supported_dtypes=settings.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    device = mm.get_torch_device()
    cast = mm.unet_manual_cast(dtype, device, settings.supported_inference_dtypes)
    settings.set_inference_dtype(dtype, cast, device=device)
    model = settings.get_model(weights, device=mm.unet_offload_device())
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=device, offload_device=mm.unet_offload_device())
    model.load_model_weights(dict(weights), "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (_starter_patcher, (folder,))
    return patcher


class StarterTextEncoder(comfy.sd1_clip.SDClipModel):
    """CLIP's text model with any vocabulary, projection and depth; gives the last but one hidden state."""

    def __init__(
        self, config: dict[str, Any], vocabulary: int, projection: int, device: Any, dtype: Any, model_options: dict
    ) -> None:
        special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}
        super().__init__(
            device=device,
            dtype=dtype,
            layer="last",
            textmodel_json_config=dict(config),
            special_tokens=special,
            layer_norm_hidden_state=False,
            model_options=model_options,
        )
        made = {"device": device, "dtype": dtype}
        width, operations = config["hidden_size"], self.operations
        self.transformer.set_input_embeddings(operations.Embedding(vocabulary, width, **made))
        self.transformer.text_projection = operations.Linear(width, projection, bias=False, **made)
        self.freeze()
        self.set_clip_options({"layer": -2})
        self.options_default = (self.layer, self.layer_idx, self.return_projected_pooled)


def _clip(folder: Path, disable_dynamic: bool) -> Any:
    """Both text encoders and tokenizers; the classes close over the folder because ComfyUI builds them itself."""
    names = {"l": ("text_encoder", "tokenizer"), "g": ("text_encoder_2", "tokenizer_2")}
    configs = {k: _text_config(folder / encoder, folder / tokens) for k, (encoder, tokens) in names.items()}
    weights = {k: _text_weights(folder / encoder) for k, (encoder, _) in names.items()}

    class StarterClipModel(comfy.sdxl_clip.SDXLClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict | None = None) -> None:
            nn.Module.__init__(self)
            for key, sd in weights.items():
                encoder = StarterTextEncoder(
                    configs[key],
                    sd["text_model.embeddings.token_embedding.weight"].shape[0],
                    sd["text_projection.weight"].shape[0],
                    device,
                    dtype,
                    model_options or {},
                )
                setattr(self, f"clip_{key}", encoder)
            self.dtypes = {dtype}

    class StarterTokenizer(comfy.sdxl_clip.SDXLTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None) -> None:
            for key, (_, tokens) in names.items():
                tokenizer = comfy.sd1_clip.SDTokenizer(
                    tokenizer_path=str(folder / tokens),
                    pad_token=configs[key]["pad_token_id"],
                    embedding_directory=embedding_directory,
                    embedding_size=configs[key]["hidden_size"],
                    embedding_key=f"clip_{key}",
                    tokenizer_data=tokenizer_data or {},
                )
                setattr(self, f"clip_{key}", tokenizer)

    state = {f"clip_{k}.transformer.{name}": v for k, sd in weights.items() for name, v in sd.items()}
    state |= {f"clip_{k}.logit_scale": torch.tensor(4.6055) for k in weights}
    return comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(StarterTokenizer, StarterClipModel),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=sum(v.numel() for v in state.values()),
        state_dict=state,
        model_options={"dtype": torch.float32},  # small: nothing is gained by rounding
        disable_dynamic=disable_dynamic,
    )


def _text_config(encoder: Path, tokenizer: Path) -> dict[str, Any]:
    """The encoder's configuration with the ids that the tokenizer really uses."""
    from transformers import CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(str(tokenizer))
    ids = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    return {**_config(encoder), **ids, "pad_token_id": tokens.pad_token_id}


def _text_weights(folder: Path) -> dict[str, Tensor]:
    """Weights under ComfyUI's names; the first encoder has no projection, and what it would give is not used."""
    weights = {k: v for k, v in _weights(folder).items() if not k.endswith("position_ids")}
    if not any(k.startswith("text_model.") for k in weights):
        weights = {k if k.startswith("text_projection.") else f"text_model.{k}": v for k, v in weights.items()}
    width = weights["text_model.final_layer_norm.weight"].shape[0]
    weights.setdefault("text_projection.weight", torch.eye(width))
    return weights


def _vae(folder: Path) -> Any:
    """An AutoencoderTiny as ComfyUI's TAESD, padded to its width.

    diffusers scales latents by `scaling_factor`; ComfyUI divides by `vae_scale` and then multiplies by SDXL's own.
    """
    config, source = _config(folder / "vae"), _weights(folder / "vae")
    weights = {}
    for name, value in source.items():
        part, _, rest = name.partition(".layers.")
        index, _, tail = rest.partition(".")
        shift = 1 if part == "decoder" else 0  # ComfyUI's decoder begins with a clamp
        weights[f"taesd_{part}.{int(index) + shift}.{tail}"] = value.float()
    reference = comfy.taesd.taesd.TAESD(latent_channels=config["latent_channels"]).state_dict()
    padded = {k: resized(v, reference[k].shape) for k, v in weights.items()}
    scale = comfy.latent_formats.SDXL.scale_factor / config.get("scaling_factor", 1.0)
    padded |= {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(0.0)}
    widths = {*config["encoder_block_out_channels"], *config["decoder_block_out_channels"]}
    if max(widths) > WIDTH or set(padded) != set(reference):
        raise InputError("checkpoint", "a starter with TAESD's autoencoder", "another autoencoder", "install it again")
    return comfy.sd.VAE(sd=padded)
