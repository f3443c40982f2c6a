"""Small SDXLs with random weights for the host tests: one in the starter's layout, one as a single file."""

from __future__ import annotations

from pathlib import Path

import torch


def save_starter_like(folder: Path, seed: int = 0) -> Path:
    """A diffusers folder with what the starter has: 64-wide heads, 256 size ids, a narrow TAESD, tiny CLIPs."""
    from diffusers import AutoencoderTiny, UNet2DConditionModel

    from dreamer_core.teachers.sdxl.tiny_sdxl import UNET, save_tiny_sdxl

    save_tiny_sdxl(folder, seed)
    pooled = UNET["projection_class_embeddings_input_dim"] - 6 * UNET["addition_time_embed_dim"]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(64, 128),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(1, 2),
            cross_attention_dim=UNET["cross_attention_dim"],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=pooled + 6 * 256,
        )
        widths = {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4}
        vae = AutoencoderTiny(latent_channels=4, scaling_factor=0.8, **widths)
        for name, parameter in vae.named_parameters():
            if parameter.ndim == 4:  # random weights of this depth would let nothing through
                parameter.normal_(std=1.5 * parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
        latents = vae.encode(torch.rand(2, 3, 64, 64) * 2 - 1).latents
        vae.encoder.layers[-1].weight.div_(latents.std())
        for name, parameter in unet.named_parameters():
            if "conv_out.weight" in name:
                parameter.mul_(5.0)
            elif "attn2.to_out" in name or "add_embedding" in name:
                parameter.mul_(3.0)  # the prompt must count
    unet.save_pretrained(folder / "unet")
    for old in (folder / "vae").iterdir():
        old.unlink()
    vae.save_pretrained(folder / "vae")
    return folder
