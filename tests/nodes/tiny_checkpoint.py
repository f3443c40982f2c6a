"""A single-file SDXL with random weights that the stock CheckpointLoaderSimple loads.

ComfyUI recognises checkpoints by their sizes, so `register` teaches it this one's. Only tests do that.
"""

from __future__ import annotations

from pathlib import Path

import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import torch

UNET = {
    "image_size": 32,
    "use_checkpoint": False,
    "use_spatial_transformer": True,
    "legacy": False,
    "num_classes": "sequential",
    "adm_in_channels": 32 + 6 * 256,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": True,
    "context_dim": 64,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "projection_dim": 32,
}
SIGNATURE = (
    "model_channels", "use_linear_in_transformer", "transformer_depth", "context_dim", "adm_in_channels",
    "use_temporal_attention",
)  # fmt: skip


class TinyClip(comfy.sdxl_clip.SDXLClipModel):
    """Both of SDXL's text encoders, 32 wide."""

    def __init__(self, device="cpu", dtype=None, model_options=None) -> None:  # type: ignore[no-untyped-def]
        sizes = {"clip_l_model_config": TEXT, "clip_g_model_config": TEXT}
        super().__init__(device, dtype, {**(model_options or {}), **sizes})


LAYOUTS = {
    "SDXL": {},
    "SSD-1B": {"transformer_depth": [0, 2], "transformer_depth_middle": -1, "transformer_depth_output": [0, 0, 1, 2]},
    "Vega": {"transformer_depth": [0, 3], "transformer_depth_middle": -1, "transformer_depth_output": [0, 0, 3, 3]},
    "KOALA-700M": {
        "transformer_depth": [0, 4], "transformer_depth_middle": -2, "transformer_depth_output": [0, 0, 4, 4],
    },
    "KOALA-1B": {
        "transformer_depth": [0, 5], "transformer_depth_middle": 5, "transformer_depth_output": [0, 0, 5, 5],
    },
}  # fmt: skip
"""What distilled SDXLs have otherwise: depths, and no attention (-1) or nothing at all (-2) in the middle."""


class TinySDXL(comfy.supported_models.SDXL):
    """SDXL at the sizes above."""

    unet_config = {k: UNET[k] for k in SIGNATURE}  # noqa: RUF012

    def clip_target(self, state_dict=None):  # type: ignore[no-untyped-def]
        return comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, TinyClip)


TINY = {
    name: type(f"Tiny{name}", (TinySDXL,), {"unet_config": {k: (UNET | layout)[k] for k in SIGNATURE}})
    for name, layout in LAYOUTS.items()
}


def register() -> None:
    """Let ComfyUI recognise the files."""
    for kind in TINY.values():
        if kind.__name__ not in [known.__name__ for known in comfy.supported_models.models]:
            comfy.supported_models.models.insert(0, kind)


def _fill(module: torch.nn.Module, seed: int, gain: float = 1.0) -> None:
    """ComfyUI's layers start uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                std = gain * parameter[0].numel() ** -0.5
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def save_checkpoint(path: Path, seed: int = 0, layout: str = "SDXL") -> Path:
    """Write the file (about 20 MB)."""
    from safetensors.torch import save_file

    with torch.inference_mode(False):
        settings = TINY[layout](UNET | LAYOUTS[layout])
        settings.set_inference_dtype(torch.float32, None)
        unet = settings.get_model({}, device="cpu")
        clip = TinyClip(dtype=torch.float32)
        vae = comfy.taesd.taesd.TAESD(latent_channels=4)
        _fill(unet.diffusion_model, seed, 0.7)
        _fill(clip, seed + 1)
        _fill(vae.taesd_encoder, seed + 2, 1.2)
        _fill(vae.taesd_decoder, seed + 3, 1.2)
    tensors = {f"model.diffusion_model.{k}": v for k, v in unet.diffusion_model.state_dict().items()}
    tensors |= settings.process_clip_state_dict_for_saving(dict(clip.state_dict()))
    tensors |= {f"first_stage_model.{k}": v for k, v in vae.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file({k: v.contiguous().clone() for k, v in half.items()}, path)
    return path


def save_lora(path: Path, seed: int = 0) -> Path:
    """A LoRA for the cross-attention of the UNet's middle block."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    width, rank = UNET["model_channels"] * UNET["channel_mult"][-1], 4  # type: ignore[operator,index]
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            f"{name}.lora_down.weight": torch.randn(rank, width, generator=generator),
            f"{name}.lora_up.weight": torch.randn(width, rank, generator=generator),
            f"{name}.alpha": torch.tensor(float(rank)),
        },
        path,
    )
    return path


def save_multiview(path: Path, seed: int = 0) -> Path:
    """A multi-view adapter for the layout SDXL, with random weights."""
    from comfy.utils import unet_to_diffusers

    from dreamer_core.teachers.multiview.files import adapter_for, save_adapter

    widths = [UNET["model_channels"] * factor for factor in UNET["channel_mult"]]  # type: ignore[operator,attr-defined]
    ending = ".attn1.to_q.weight"
    places = [name.removesuffix(ending) for name in unet_to_diffusers(UNET) if name.endswith(ending)]
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter = adapter_for(dict.fromkeys(places, widths[-1]), tuple(widths))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(adapter, path)
    return path
