"""Write `starter/checkpoint` from the newest training state: `python -m starter.export`."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor

from dreamer_core.cli.generate import STARTER_ADAPTER

from .progress import load_checkpoint
from .tokenizer import END, save_tokenizer
from .train_unet import BATCH, CHECKPOINT, Nets
from .train_vae import load_vae
from .world import COLOURS, KIND_NAMES, PATTERNS

OUTPUT = Path(__file__).with_name("checkpoint")
CARD = Path(__file__).with_name("model_card.md")
HISTORY = "training.json"
"""Steps, latents and minutes that the weights have behind them."""
MODEL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.33.0",
    "feature_extractor": [None, None],
    "force_zeros_for_empty_prompt": False,
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}


def trained_nets() -> tuple[Nets, dict[str, Any]]:
    """The averaged weights of the newest training checkpoint, and the checkpoint."""
    state = load_checkpoint(CHECKPOINT)
    if state is None:
        raise FileNotFoundError("nothing is trained yet; run `python -m starter.train --stage unet`")
    nets = Nets.build()
    nets.load(state["nets"])
    with torch.no_grad():
        for parameter, value in zip(nets.parameters(), state["average"], strict=True):
            parameter.copy_(value)
    return nets, state


def save_half(tensors: dict[str, Tensor], path: Path) -> None:
    """Weights as fp16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files for the owner only


def save_text_encoder(model: torch.nn.Module, folder: Path, architecture: str) -> None:
    """CLIP weights under the key names that every release of transformers, and ComfyUI, reads."""
    tensors = {
        key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}": value
        for key, value in model.state_dict().items()
        if not key.endswith("position_ids")
    }
    save_half(tensors, folder / "model.safetensors")
    c: Any = model.config
    config = {
        "architectures": [architecture],
        "model_type": "clip_text_model",
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "layer_norm_eps": c.layer_norm_eps,
        "torch_dtype": "float32",  # what they are loaded as; the file is half
    }
    names = (
        "bos_token_id", "eos_token_id", "pad_token_id", "hidden_act", "hidden_size", "intermediate_size",
        "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "projection_dim", "vocab_size",
    )  # fmt: skip
    config |= {name: getattr(c, name) for name in names}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_diffusers_config(model: Any, folder: Path) -> None:
    """The configuration without anything about this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    without = {"_use_default_values", "_name_or_path"}
    if isinstance(model, AutoencoderTiny):
        without.add("block_out_channels")  # made from the decoder's when it is loaded
    config = {k: v for k, v in model.config.items() if k not in without}
    config = {"_class_name": type(model).__name__, "_diffusers_version": "0.33.0"} | config
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def export(output: Path = OUTPUT) -> int:
    """Write the checkpoint next to its place, then move it there; the size of all files in bytes."""
    nets, state = trained_nets()
    vae = load_vae()
    new, old = output.with_name(output.name + ".new"), output.with_name(output.name + ".old")
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    new.mkdir(parents=True)
    save_half(nets.unet.state_dict(), new / "unet" / "diffusion_pytorch_model.safetensors")
    save_diffusers_config(nets.unet, new / "unet")
    save_half(vae.state_dict(), new / "vae" / "diffusion_pytorch_model.safetensors")
    save_diffusers_config(vae, new / "vae")
    save_text_encoder(nets.text.one, new / "text_encoder", "CLIPTextModel")
    save_text_encoder(nets.text.two, new / "text_encoder_2", "CLIPTextModelWithProjection")
    save_tokenizer(new / "tokenizer", END)
    save_tokenizer(new / "tokenizer_2", "!")
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    ).save_pretrained(new / "scheduler")
    (new / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    card = CARD.read_text()
    before = state["before"]
    history = {
        "steps": before["steps"] + state["step"],
        "images": before["images"] + state["step"] * BATCH,
        "minutes": before["minutes"] + round(state["spent"] / 60),
    }
    (new / HISTORY).write_text(json.dumps(history) + "\n")
    facts = {
        "steps": f"{history['steps']:,}",
        "images": f"{history['images']:,}",
        "minutes": f"{history['minutes']}",
        "kinds": ", ".join(KIND_NAMES),
        "colours": ", ".join(COLOURS),
        "patterns": ", ".join(PATTERNS),
    }
    for name, value in facts.items():
        card = card.replace("{" + name + "}", value)
    (new / "README.md").write_text(card)
    if (output / STARTER_ADAPTER).is_file():  # of the weights before, which it still fits, if not as well
        shutil.copy2(output / STARTER_ADAPTER, new)
    if output.exists():
        output.rename(old)
    new.rename(output)
    shutil.rmtree(old, ignore_errors=True)
    return sum(f.stat().st_size for f in output.rglob("*") if f.is_file())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.export", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    print(f"{options.output}: {export(options.output) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
