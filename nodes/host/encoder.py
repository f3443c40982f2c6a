"""A private copy of a VAE's encoder that gradients may pass through.

The VAE as ComfyUI loads it was made in inference mode and may live in evictable memory, so it cannot be differentiated;
this one is rebuilt from its weights (AutoencoderKL and TAESD), without the decoder.
"""

from __future__ import annotations

import re
from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.model import Encoder, ResnetBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...dreamer_core.errors import InputError
from ...dreamer_core.optimize.memory import ENCODER_BYTES_PER_PIXEL
from .taesd import tiny_encoder


class KLEncoder(nn.Module):
    """AutoencoderKL's encoder: display images [B, 3, H, W] in [0, 1] -> mean latents [B, 4, H/8, W/8]."""

    bytes_per_pixel = ENCODER_BYTES_PER_PIXEL
    """What a backward pass needs of one image's activations, in float32."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.recompute = False
        self.encoder = Encoder(**_kl_layout(weights))
        out = weights["encoder.conv_out.weight"].shape[0]
        self.quant_conv = None
        if "quant_conv.weight" in weights:
            conv = comfy.ops.disable_weight_init.Conv2d
            self.quant_conv = conv(out, weights["quant_conv.weight"].shape[0], 1)
        self.load_state_dict({k: v for k, v in weights.items() if k.startswith(("encoder.", "quant_conv."))})
        for module in self.encoder.modules():
            if isinstance(module, ResnetBlock):
                module.forward = _Recomputed(self, module.forward)

    def forward(self, images: Tensor) -> Tensor:
        moments = self.encoder(images * 2.0 - 1.0)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]


class _Recomputed:
    """A block's forward that can run again in the backward pass instead of keeping its activations."""

    def __init__(self, owner: KLEncoder, forward: Any) -> None:
        self._owner = [owner]  # in a list: a module that is an attribute would become a child
        self._forward = forward

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._owner[0].recompute and x.requires_grad:
            return checkpoint(self._forward, x, *args, use_reentrant=False, **kwargs)
        return self._forward(x, *args, **kwargs)


class TinyEncoder(nn.Module):
    """TAESD's encoder: display images [B, 3, H, W] in [0, 1] -> latents [B, 4, H/8, W/8]."""

    bytes_per_pixel = 4_000
    """The same at width 64: some fifteen maps at full size, and a third of that below."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        prefix = "taesd_encoder."
        inner = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        self.taesd_encoder = tiny_encoder(inner)
        self.vae_scale = nn.Parameter(weights["vae_scale"].detach().clone())
        self.vae_shift = nn.Parameter(weights["vae_shift"].detach().clone())
        self.recompute = False

    def forward(self, images: Tensor) -> Tensor:
        return self.taesd_encoder(images) / self.vae_scale + self.vae_shift


def build_encoder(vae: Any) -> KLEncoder | TinyEncoder:
    """A float32 encoder with the weights of a ComfyUI VAE. Call outside inference mode.

    Errors: InputError where the VAE is none of the two kinds that SDXL checkpoints carry.
    """
    if vae is None or getattr(vae, "first_stage_model", None) is None:
        raise InputError("vae", "a VAE", "none", "this checkpoint holds no VAE: use a Load VAE node")
    weights = {k: v.detach().clone() for k, v in vae.get_sd().items()}
    known: dict[str, type[KLEncoder | TinyEncoder]] = {
        "encoder.conv_in.weight": KLEncoder,
        "taesd_encoder.0.weight": TinyEncoder,
    }
    for key, kind in known.items():
        if key in weights and weights[key].ndim == 4:
            encoder = kind(weights)
            encoder.float().eval().requires_grad_(False)
            _check_latents(encoder, weights)
            return encoder
    name = type(vae.first_stage_model).__name__
    raise InputError("vae", "SDXL's VAE (AutoencoderKL or TAESD)", name, "wire the VAE of the checkpoint")


def _check_latents(encoder: nn.Module, weights: dict[str, Tensor]) -> None:
    last = [v for k, v in weights.items() if k.startswith(("encoder.conv_out.b", "taesd_encoder.14.b"))]
    channels = last[0].shape[0] // (2 if isinstance(encoder, KLEncoder) else 1) if last else 0
    if channels != 4:
        raise InputError("vae", "a VAE with 4 latent channels", f"one with {channels}", "wire SDXL's VAE")


def _kl_layout(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of ComfyUI's Encoder that fit the weights."""
    blocks = [re.match(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight", k) for k in weights]
    indices = [(int(m[1]), int(m[2])) for m in blocks if m]
    levels = 1 + max(i for i, _ in indices)
    base = weights["encoder.conv_in.weight"].shape[0]
    widths = [weights[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    moments = weights["encoder.conv_out.weight"].shape[0]
    return {
        "ch": base,
        "out_ch": 3,
        "ch_mult": [w // base for w in widths],
        "num_res_blocks": 1 + max(j for _, j in indices),
        "attn_resolutions": [],
        "in_channels": 3,
        "resolution": 256,
        "z_channels": moments // 2,
        "double_z": True,
    }


def as_normal_tensors(module: nn.Module) -> None:
    """Make every parameter an ordinary tensor again; one that was moved in inference mode is not. In place."""
    with torch.inference_mode(False):
        for owner in module.modules():
            for name, param in list(owner.named_parameters(recurse=False)):
                if param.is_inference():
                    setattr(owner, name, nn.Parameter(param.detach().clone(), requires_grad=False))
