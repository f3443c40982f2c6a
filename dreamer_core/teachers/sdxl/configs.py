"""Configurations of the SDXL parts, read off the tensor shapes of a single file in the original ("sgm") layout.

What shapes cannot tell is SDXL's own: 64 channels per attention head, the VAE's scaling factor 0.13025, the noise
schedule, CLIP's activations (stabilityai/generative-models, configs/inference/sd_xl_base.yaml).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..safetensors_header import Header

HEAD_CHANNELS = 64
VAE_SCALING_FACTOR = 0.13025
UNET_PREFIX = "model.diffusion_model."
TEXT_PREFIX = "conditioner.embedders.0.transformer."
TEXT_2_PREFIX = "conditioner.embedders.1.model."
VAE_PREFIX = "first_stage_model."
PREFIXES = {"unet": UNET_PREFIX, "vae": VAE_PREFIX, "text_encoder": TEXT_PREFIX, "text_encoder_2": TEXT_2_PREFIX}

SCHEDULER_CONFIG: Mapping[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def _count(header: Header, pattern: str) -> int:
    """How many numbers occur in the place of `#` in names that start with `pattern`."""
    matcher = re.compile(re.escape(pattern).replace(r"\#", r"(\d+)"))
    return len({found.group(1) for name in header if (found := matcher.match(name))})


def unet_config(header: Header, pooled_dim: int) -> dict[str, Any]:
    """UNet2DConditionModel's config; `header` holds the UNet's tensors without prefix.

    Errors: KeyError where the tensors are not those of an SDXL UNet.
    """
    shapes = header.shapes
    channels: list[int] = []
    depths: list[int] = []
    attends: list[bool] = []
    level_starts = True
    inputs = _count(header, "input_blocks.#.")
    for i in range(1, inputs):
        if f"input_blocks.{i}.0.op.weight" in header:
            level_starts = True
            continue
        depth = _count(header, f"input_blocks.{i}.1.transformer_blocks.#.")
        if level_starts:
            channels.append(shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0])
            depths.append(depth or 1)
            attends.append(depth > 0)
            level_starts = False
    blocks = sum(f"input_blocks.{i}.0.in_layers.2.weight" in header for i in range(inputs))
    added = shapes["label_emb.0.0.weight"][1]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "layers_per_block": blocks // len(channels),
        "transformer_layers_per_block": depths,
        "attention_head_dim": [max(1, c // HEAD_CHANNELS) for c in channels],
        "cross_attention_dim": shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (added - pooled_dim) // 6,
        "projection_class_embeddings_input_dim": added,
    }


def vae_config(header: Header) -> dict[str, Any]:
    """AutoencoderKL's config; `header` holds the VAE's tensors without prefix. Errors: KeyError as above."""
    shapes = header.shapes
    levels = _count(header, "encoder.down.#.")
    channels = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["encoder.conv_in.weight"][1],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(header, "encoder.down.0.block.#."),
        "latent_channels": shapes["encoder.conv_out.weight"][0] // 2,
        "norm_num_groups": 32,
        "sample_size": 1024,
        "scaling_factor": VAE_SCALING_FACTOR,
        "use_quant_conv": "quant_conv.weight" in header,
        "use_post_quant_conv": "post_quant_conv.weight" in header,
    }


def _clip_config(width: int, layers: int, inner: int, vocabulary: int, length: int, projection: int) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "vocab_size": vocabulary,
        "max_position_embeddings": length,
        "projection_dim": projection,
        "bos_token_id": 0,
        "eos_token_id": 2,  # as SDXL's own: "take the largest token id", which is the end of the text
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    }


def text_config(header: Header) -> dict[str, Any]:
    """CLIPTextModel's config; `header` holds the first encoder's tensors without prefix. Errors: KeyError."""
    shapes = header.shapes
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    config = _clip_config(
        width=width,
        layers=_count(header, "text_model.encoder.layers.#."),
        inner=shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        vocabulary=vocabulary,
        length=shapes["text_model.embeddings.position_embedding.weight"][0],
        projection=width,
    )
    return {**config, "architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu"}


def text_config_2(header: Header) -> dict[str, Any]:
    """CLIPTextModelWithProjection's config; `header` holds the OpenCLIP tensors without prefix. Errors: KeyError."""
    shapes = header.shapes
    vocabulary, width = shapes["token_embedding.weight"]
    config = _clip_config(
        width=width,
        layers=_count(header, "transformer.resblocks.#."),
        inner=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        vocabulary=vocabulary,
        length=shapes["positional_embedding"][0],
        projection=shapes["text_projection"][1],
    )
    return {**config, "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu"}


def part_configs(header: Header) -> dict[str, dict[str, Any]]:
    """Configs of a single file's UNet and text encoders. Errors: KeyError where a tensor of SDXL is missing."""
    second = text_config_2(header.stripped(TEXT_2_PREFIX))
    return {
        "unet": unet_config(header.stripped(UNET_PREFIX), second["projection_dim"]),
        "text_encoder": text_config(header.stripped(TEXT_PREFIX)),
        "text_encoder_2": second,
    }
