"""Distilled SDXLs of other layouts (SSD-1B, Segmind Vega, KOALA) as diffusers folders, with their LoRAs."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.sdxl.tiny_sdxl import UNET

pytestmark = pytest.mark.usefixtures("single_threaded")

LAYOUTS = {
    # Depths of each block's transformers differ, those of the way up are named apart; no attention in the middle.
    "SSD-1B": {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (1, (2, 1)),
        "reverse_transformer_layers_per_block": ((2, 1, 1), 1),
    },
    "Vega": {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 1)},
    "KOALA-700M": {"mid_block_type": None, "layers_per_block": 1, "transformer_layers_per_block": (1, 2)},
    "KOALA-1B": {"layers_per_block": 1, "transformer_layers_per_block": (1, 2)},
}


@pytest.fixture(params=LAYOUTS)
def folder(request, tiny_sdxl_dir, tmp_path):
    shutil.copytree(tiny_sdxl_dir, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        UNet2DConditionModel(**{**UNET, **LAYOUTS[request.param]}).save_pretrained(tmp_path / "model" / "unet")
    return tmp_path / "model"


def test_the_noise_is_the_networks_own(folder):
    """Through our loading, against the network called directly."""
    sdxl = load_sdxl(folder)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    cond = sdxl.encode_text(["a red mug"])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = float(sdxl.sigmas[500])
    with torch.no_grad():
        expected = unet(
            x / (1 + sigma**2) ** 0.5,
            500,
            encoder_hidden_states=cond.tokens,
            added_cond_kwargs={"text_embeds": cond.pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])},
        ).sample
    torch.testing.assert_close(sdxl.eps(x, torch.tensor([sigma]), cond), expected, atol=1e-5, rtol=1e-5)


def test_a_lora_finds_its_layers(folder, tmp_path):
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    before = load_sdxl(folder)._unet.state_dict()[f"{name}.weight"].clone()
    down, up = torch.ones(2, before.shape[1]), torch.ones(before.shape[0], 2)
    key = f"lora_unet_{name}".replace(".", "_")
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, tmp_path / "style.safetensors")
    after = load_sdxl(folder, loras=[(tmp_path / "style.safetensors", 0.5)])._unet.state_dict()[f"{name}.weight"]
    torch.testing.assert_close(after, before + 0.5 * up @ down)
