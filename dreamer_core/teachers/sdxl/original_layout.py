"""Names SDXL's diffusers tensors as the original ("sgm") single file does: the way back from diffusers' converters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..safetensors_header import Header
from .configs import TEXT_2_PREFIX, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX

RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
VAE_ATTENTION = {
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}
OPEN_CLIP = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "self_attn.out_proj.": "attn.out_proj.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}


def _swap_start(name: str, table: Mapping[str, str]) -> str:
    return next((new + name[len(old) :] for old, new in table.items() if name.startswith(old)), name)


def original_unet_name(name: str, layers_per_block: int, attends_up: list[bool]) -> str:
    """Original name of a UNet tensor; `attends_up` says which up blocks have attention."""
    stride = layers_per_block + 1
    if found := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        side, block, part, layer, rest = found.groups()
        first = 1 if side == "down" else 0
        blocks = "input_blocks" if side == "down" else "output_blocks"
        slot = 0 if part == "resnets" else 1
        rest = _swap_start(rest, RESNET) if part == "resnets" else rest
        return f"{blocks}.{first + int(block) * stride + int(layer)}.{slot}.{rest}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{(int(found.group(1)) + 1) * stride}.0.op.{found.group(2)}"
    if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.+)", name):
        block = int(found.group(1))
        return f"output_blocks.{(block + 1) * stride - 1}.{2 if attends_up[block] else 1}.{found.group(2)}"
    if found := re.match(r"mid_block\.resnets\.(\d+)\.(.+)", name):
        return f"middle_block.{2 * int(found.group(1))}.{_swap_start(found.group(2), RESNET)}"
    if found := re.match(r"mid_block\.attentions\.0\.(.+)", name):
        return f"middle_block.1.{found.group(1)}"
    return _swap_start(name, UNET_ENDS)


def original_vae_name(name: str, levels: int) -> str:
    """Original name of an AutoencoderKL tensor."""
    name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    if found := re.match(r"(.+)mid_block\.attentions\.0\.(.+)", name):
        return f"{found.group(1)}mid.attn_1.{_swap_start(found.group(2), VAE_ATTENTION)}"
    return name


def original_unet(state: Mapping[str, Tensor], layers_per_block: int, attends_up: list[bool]) -> dict[str, Tensor]:
    """A UNet2DConditionModel's tensors under their original names."""
    return {original_unet_name(n, layers_per_block, attends_up): v for n, v in state.items()}


def original_vae(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """An AutoencoderKL's tensors under their original names; attention was a 1x1 convolution there."""
    renamed = {original_vae_name(n, levels): v for n, v in state.items()}
    return {n: v[:, :, None, None] if "mid.attn_1." in n and v.ndim == 2 else v for n, v in renamed.items()}


def original_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPTextModel's tensors; transformers 5.6 dropped the level `text_model`, the file keeps it."""
    return {n if n.startswith("text_model.") else f"text_model.{n}": v for n, v in state.items()}


TEXT_2_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def original_text_2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPTextModelWithProjection's tensors as OpenCLIP names and packs them."""
    out: dict[str, Tensor] = {"text_projection": state["text_projection.weight"].T}
    for name, value in state.items():
        found = re.match(r"text_model\.encoder\.layers\.(\d+)\.(.+)", name)
        if found is None:
            if name in TEXT_2_ENDS:
                out[TEXT_2_ENDS[name]] = value
            continue
        block, rest = f"transformer.resblocks.{found.group(1)}.", found.group(2)
        if rest.startswith("self_attn.q_proj."):
            packed = [state[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            out[f"{block}attn.in_proj_{rest.rsplit('.', 1)[1]}"] = torch.cat(packed)
        elif not rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            out[block + _swap_start(rest, OPEN_CLIP)] = value
    return out


def with_plain_projection(header: Header) -> Header:
    """The header as if its text projection lay there as OpenCLIP writes it.

    Some converters write a linear layer instead: `text_projection.weight`, its sides exchanged (diffusers issue 6934).
    """
    name = f"{TEXT_2_PREFIX}text_projection"
    shape = header.shapes.get(f"{name}.weight", ())
    if name in header or len(shape) != 2:
        return header
    return Header({**header.shapes, name: (shape[1], shape[0])}, header.metadata)


def text_2_from_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's tensors under the names of CLIPTextModelWithProjection: `original_text_2` undone."""
    ends = {old: new for new, old in TEXT_2_ENDS.items()}
    inner = {old: new for new, old in OPEN_CLIP.items()}
    plain = tensors.get("text_projection")
    out = {"text_projection.weight": tensors["text_projection.weight"] if plain is None else plain.T.contiguous()}
    for name, value in tensors.items():
        if name in ends:
            out[ends[name]] = value
        elif found := re.match(r"transformer\.resblocks\.(\d+)\.(.+)", name):
            layer, rest = f"text_model.encoder.layers.{found.group(1)}.", found.group(2)
            if rest.startswith("attn.in_proj_"):
                for p, part in zip("qkv", value.chunk(3)):
                    out[f"{layer}self_attn.{p}_proj.{rest.removeprefix('attn.in_proj_')}"] = part.contiguous()
            else:
                out[layer + _swap_start(rest, inner)] = value
    return out


def original_checkpoint(
    unet: Mapping[str, Tensor], vae: Mapping[str, Tensor], text: Mapping[str, Tensor], text_2: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """One single file's tensors, contiguous, from parts that already have their original names."""
    parts = {UNET_PREFIX: unet, VAE_PREFIX: vae, TEXT_PREFIX: text, TEXT_2_PREFIX: text_2}
    return {prefix + n: v.contiguous() for prefix, part in parts.items() for n, v in part.items()}
