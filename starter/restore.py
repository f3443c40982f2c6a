"""Go on from the shipped weights: `python -m starter.train --stage restore`, for a `starter/work` without them.

What half precision and the average kept is what training starts from; the optimiser's moments begin anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from dreamer_core.cli.generate import STARTER_ADAPTER
from dreamer_core.teachers.multiview.files import attention_of, load_adapter

from .export import HISTORY, OUTPUT
from .progress import save_atomically
from .train_multiview import CHECKPOINT as ADAPTER_STATE
from .train_unet import CHECKPOINT as UNET_STATE
from .train_unet import Nets
from .train_vae import CHECKPOINT as VAE_STATE

NEW = {"step": 0, "spent": 0.0}
"""Of a training that begins with these weights."""


def restore(checkpoint: Path = OUTPUT) -> None:
    """Write the states of the autoencoder, the UNet with its text encoders and the adapter, unless they exist."""
    if not VAE_STATE.exists():
        vae = AutoencoderTiny.from_pretrained(checkpoint / "vae", torch_dtype=torch.float32)
        save_atomically({"model": vae.state_dict(), "scale": float(vae.config.scaling_factor), **NEW}, VAE_STATE)
    if not UNET_STATE.exists():
        nets = Nets.build()
        unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=torch.float32)
        nets.unet.load_state_dict(unet.state_dict())
        one = CLIPTextModel.from_pretrained(checkpoint / "text_encoder", dtype=torch.float32)
        two = CLIPTextModelWithProjection.from_pretrained(checkpoint / "text_encoder_2", dtype=torch.float32)
        nets.text.one.load_state_dict(one.state_dict())
        nets.text.two.load_state_dict(two.state_dict())
        history = json.loads((checkpoint / HISTORY).read_text())
        state = {"nets": nets.state(), "average": [p.detach() for p in nets.parameters()]}
        save_atomically(state | {"before": history, **NEW}, UNET_STATE)
    if not ADAPTER_STATE.exists() and (checkpoint / STARTER_ADAPTER).exists():
        unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=torch.float32)
        blocks = tuple(unet.config.block_out_channels)
        adapter = load_adapter(checkpoint / STARTER_ADAPTER, attention_of(unet), blocks)
        average = [p.detach() for p in adapter.parameters()]
        save_atomically({"adapter": adapter.state_dict(), "average": average, **NEW}, ADAPTER_STATE)
