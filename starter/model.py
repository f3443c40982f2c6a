"""The networks of the starter checkpoint: SDXL's own classes in small, and what they need to be trained together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .tokenizer import CONTEXT, END, START, save_tokenizer, vocabulary

HIDDEN = 64
"""Width of each text encoder; the UNet's context is twice as wide."""
POOLED = 128
VAE_WIDTH = 32
SIZE_IDS = (128.0, 128.0, 0.0, 0.0, 128.0, 128.0)
"""Original height and width, crop top and left, target height and width: always these."""


def build_vae() -> AutoencoderTiny:
    """TAESD's architecture, `VAE_WIDTH` wide, 0.6 M parameters."""
    return AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(VAE_WIDTH,) * 4,
        decoder_block_out_channels=(VAE_WIDTH,) * 4,
    )


@torch.no_grad()
def start_from_pooling(vae: AutoencoderTiny) -> None:
    """Begin as a blur: three latent channels are the picture eight times smaller, in colour.

    From random weights the autoencoder finds brightness first and colour only much later.
    """
    soft = torch.tensor([1.0, 2.0, 1.0]) / 4
    soft = torch.outer(soft, soft)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            module.conv[-1].weight.mul_(0.2)
            module.conv[-1].bias.zero_()
    trunk = [m for part in (vae.encoder, vae.decoder) for m in part.layers if isinstance(m, nn.Conv2d)]
    for conv in trunk:
        conv.weight[:3] = 0
        for channel in range(3):
            conv.weight[channel, channel] = soft
        if conv.bias is not None:
            conv.bias[:3] = 0
    to_latent, from_latent = vae.encoder.layers[-1], vae.decoder.layers[0]
    to_latent.weight[:3] *= 2.5  # [0, 1] -> about [-1.25, 1.25]
    to_latent.bias[:3] = -1.25
    from_latent.weight[:3] *= 0.4
    from_latent.bias[:3] = 0.5


def build_unet() -> UNet2DConditionModel:
    """SDXL's UNet with three levels: no attention at 16 x 16, attention at 8 x 8 and 4 x 4."""
    channels = (64, 128, 192)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=2,
        transformer_layers_per_block=[1, 1, 1],
        attention_head_dim=[c // 64 for c in channels],
        cross_attention_dim=2 * HIDDEN,
        norm_num_groups=32,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=POOLED + 6 * 256,
    )


def text_config(act: str) -> CLIPTextConfig:
    """Two layers of two heads of 32; ids of start, end and padding as the tokenizers have them."""
    vocab, _ = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        hidden_act=act,
        projection_dim=POOLED,
        bos_token_id=vocab[START],
        eos_token_id=vocab[END],
        pad_token_id=vocab[END] if act == "quick_gelu" else 0,
    )


class TextEncoders(nn.Module):
    """Both CLIP text encoders with their tokenizers, read as SDXL reads them."""

    def __init__(self, tokenizer_folder: Path) -> None:
        super().__init__()
        self.one = CLIPTextModel(text_config("quick_gelu"))
        self.two = CLIPTextModelWithProjection(text_config("gelu"))
        for module in self.modules():  # CLIP's own 0.02 learns slowly at this width
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
        self.tokenizers = []
        for i, pad in enumerate((END, "!")):
            folder = tokenizer_folder / f"tokenizer{i + 1}"
            save_tokenizer(folder, pad)
            self.tokenizers.append(CLIPTokenizer.from_pretrained(folder))
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}

    def ids(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids [B, 77] of both tokenizers (remembered: there are only thousands of captions)."""
        for text in texts:
            if text not in self._ids:
                kw = {"padding": "max_length", "max_length": CONTEXT, "truncation": True, "return_tensors": "pt"}
                self._ids[text] = tuple(t(text, **kw).input_ids[0] for t in self.tokenizers)
        pairs = [self._ids[text] for text in texts]
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    def forward(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Context [B, 77, 128] from the penultimate states, and the pooled embedding [B, 128]."""
        device = next(self.parameters()).device
        one, two = (ids.to(device) for ids in self.ids(texts))
        first = self.one(one, output_hidden_states=True)
        second = self.two(two, output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


def alphas_cumprod() -> Tensor:
    """[1000]: SDXL's noise schedule."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


def predict(
    unet: UNet2DConditionModel, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor | None, **more: Any
) -> Tensor:
    """eps [B, 4, h, w] of noisy latents x in the model's own scale at timesteps t [B]."""
    ids = x.new_tensor(SIZE_IDS).expand(len(x), 6)
    return unet(x, t, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}, **more).sample
