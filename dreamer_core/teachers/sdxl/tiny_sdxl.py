"""A tiny SDXL with random weights: every part, size and file layout of the real thing but its knowledge.

For tests, and for trying out the machinery where no checkpoint is at hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..quiet import quiet_loading
from .configs import SCHEDULER_CONFIG, VAE_SCALING_FACTOR
from .original_layout import (
    original_checkpoint,
    original_text,
    original_text_2,
    original_unet,
    original_vae,
)

WIDTHS = (32, 64)  # of the two text encoders
WORDS = (
    "a",
    "an",
    "the",
    "of",
    "on",
    "in",
    "and",
    "with",
    "front",
    "side",
    "back",
    "view",
    "photo",
    "red",
    "green",
    "blue",
    "yellow",
    "white",
    "black",
)
MODEL_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": False,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (1, 1),
    "cross_attention_dim": sum(WIDTHS),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": WIDTHS[1] + 6 * 32,
}
VAE: dict[str, Any] = {
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 128,
    "scaling_factor": VAE_SCALING_FACTOR,
}


def save_tiny_sdxl(folder: str | Path, seed: int = 0) -> Path:
    """Write a random-weight SDXL (about 6 MB) as a diffusers folder; the same seed gives the same weights."""
    folder = Path(folder)
    with quiet_loading():
        for name, part in _parts(seed).items():
            part.save_pretrained(folder / name, safe_serialization=True)
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(SCHEDULER_CONFIG), indent=1))
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=1))
    _save_tokenizers(folder)
    return folder


def save_tiny_single_file(path: str | Path, seed: int = 0) -> Path:
    """Write the same weights as one file in the original layout, and the tokenizers beside it."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tiny_single_file_tensors(seed), path)
    _save_tokenizers(path.parent)
    return path


def tiny_single_file_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Tensors of the tiny SDXL under the names of the original layout."""
    state = {name: part.state_dict() for name, part in _parts(seed).items()}
    return original_checkpoint(
        unet=original_unet(state["unet"], UNET["layers_per_block"], attends_up=[True, False]),
        vae=original_vae(state["vae"], levels=len(VAE["block_out_channels"])),
        text=original_text(state["text_encoder"]),
        text_2=original_text_2(state["text_encoder_2"]),
    )


def _parts(seed: int) -> dict[str, Any]:
    """The four networks, scaled so that the predicted noise and the latents have about unit variance."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "unet": UNet2DConditionModel(**UNET),
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(_text_config(WIDTHS[0], "quick_gelu")),
            "text_encoder_2": CLIPTextModelWithProjection(_text_config(WIDTHS[1], "gelu")),
        }
        for part in parts.values():
            part.requires_grad_(False).eval()
        for name in ("text_encoder", "text_encoder_2"):
            for parameter_name, parameter in parts[name].named_parameters():
                if parameter.ndim == 2:  # CLIP's own initialisation is so small that prompts hardly differ
                    std = 1.0 if "token_embedding" in parameter_name else parameter.shape[1] ** -0.5
                    parameter.normal_(std=std)
        _scale_output(parts["unet"].conv_out, _unet_output(parts["unet"]), 1.0)
        _scale_output(
            parts["vae"].quant_conv,
            parts["vae"].encode(torch.rand(2, 3, 64, 64) * 2 - 1).latent_dist.mean,
            1.0 / VAE_SCALING_FACTOR,
        )
        return parts


def _text_config(width: int, activation: str) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(_vocabulary()[0]),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=1,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=0,
        eos_token_id=2,  # as SDXL's own: "take the largest token id", which is the end of the text
        pad_token_id=1,
    )


def _unet_output(unet: Any) -> Tensor:
    added = {"text_embeds": torch.randn(2, WIDTHS[1]), "time_ids": torch.full((2, 6), 64.0)}
    tokens = torch.randn(2, 77, sum(WIDTHS))
    return unet(torch.randn(2, 4, 16, 16), 500, tokens, added_cond_kwargs=added, return_dict=False)[0]


def _scale_output(layer: Any, output: Tensor, std: float) -> None:
    """Scale a last layer so that what was `output` has this standard deviation, and no mean per channel."""
    mean = output.mean(dim=(0, 2, 3))
    factor = std / (output - mean[:, None, None]).std()
    layer.weight.mul_(factor)
    channels = len(mean)
    layer.bias[:channels].sub_(mean).mul_(factor)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level CLIP vocabulary: all bytes, with and without the end of a word, and a few whole words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges += [] if pair in merges else [pair]
            pieces = ["".join(pair), *pieces[2:]]
    tokens = [*letters, *(f"{c}</w>" for c in letters), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def _save_tokenizers(folder: Path) -> None:
    vocabulary, merges = _vocabulary()
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
        (target / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": pad,
        }
        (target / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
