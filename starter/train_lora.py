"""A LoRA of one style: whatever is asked for is made of gold."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from tqdm import tqdm

from .dataset import WORK
from .export import save_half, trained_nets
from .latents import encode_all, load_latents
from .model import alphas_cumprod
from .progress import Clock, Parts, load_checkpoint, save_atomically, save_sheet
from .train_unet import SHEET_PROMPTS, denoising_loss, encode_captions, sample
from .train_vae import load_vae

STYLE = "gold"
OUTPUT = Path(__file__).with_name("lora") / f"{STYLE}.safetensors"
CHECKPOINT = WORK / f"lora_{STYLE}.pt"
RANK = 8
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
BATCH, PARTS = 32, 4
LEARNING_RATE = 2e-3


def kohya_names(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """peft's UNet weights under the names that ComfyUI's LoRA loaders know, and dreamer_core, too."""
    renamed = {}
    for name, value in lora.items():
        module, _, kind = name.removesuffix(".weight").rpartition(".")
        part = {"lora_A": "lora_down", "lora_B": "lora_up"}[kind]
        renamed[f"lora_unet_{module.replace('.', '_')}.{part}.weight"] = value
    return renamed


def train(minutes: float, seed: int = 0) -> None:
    """Train adapters of rank 8 on the attention blocks of the newest UNet, then write the LoRA file.

    The alpha equals the rank, so that readers with and without alphas agree.
    """
    folder = WORK / f"latents_{STYLE}"
    encode_all(rounds=1, style=STYLE, folder=folder)
    (latents, words), vae, (nets, trained) = load_latents(folder), load_vae(), trained_nets()
    teacher = {"step": trained["step"], "before": trained["before"]}
    torch.manual_seed(seed)
    for parameter in nets.parameters():
        parameter.requires_grad_(False)
    nets.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
    parameters = [p for p in nets.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    state = load_checkpoint(CHECKPOINT)
    step, spent = 0, 0.0
    if state is not None and state.get("teacher") == teacher:  # else the UNet was trained on: begin anew
        set_peft_model_state_dict(nets.unet, state["lora"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    table, clock, batch_parts = alphas_cumprod(), Clock(minutes, spent), Parts(PARTS)
    bar = tqdm(desc=f"LoRA {STYLE}", initial=step, unit="step", mininterval=5)

    def loss_of(part: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step * PARTS + part)
        index = torch.randint(len(latents), (BATCH // PARTS,), generator=generator)
        with torch.no_grad():
            context, pooled = encode_captions(nets.text, words[index], generator)
        return denoising_loss(nets.unet, latents[index].float(), context, pooled, table, generator)

    def keep() -> None:
        lora = get_peft_model_state_dict(nets.unet)
        state = {"lora": lora, "optimizer": optimizer.state_dict(), "step": step, "spent": clock.spent}
        save_atomically(state | {"teacher": teacher}, CHECKPOINT)
        save_half(kohya_names(lora), OUTPUT)

    while (share := clock.tick()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
        loss = batch_parts.backward(loss_of, parameters)
        optimizer.step()
        step += 1
        bar.update()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss:.4f}", share=f"{share:.0%}")
        if step % 100 == 0:
            keep()
    keep()
    save_sheet(sample(nets, vae, list(SHEET_PROMPTS)), WORK / f"lora_{STYLE}.png", 8)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1e6:.2f} MB")
