"""Writes LoRA files in the formats that circulate, and says what they must do to the weights."""

import torch
from safetensors.torch import save_file

RANK, ALPHA = 4, 8.0

# diffusers' module -> kohya's name of it, for layers of every kind
MODULES = {
    "unet": {
        "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q": (
            "input_blocks_4_1_transformer_blocks_1_attn1_to_q"
        ),
        "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k": (
            "input_blocks_5_1_transformer_blocks_0_attn2_to_k"
        ),
        "down_blocks.1.attentions.0.proj_in": "input_blocks_4_1_proj_in",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (
            "middle_block_1_transformer_blocks_0_attn1_to_out_0"
        ),
        "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.2": "output_blocks_2_1_transformer_blocks_0_ff_net_2",
    },
    "text_encoder": {
        "text_model.encoder.layers.0.self_attn.q_proj": "text_model_encoder_layers_0_self_attn_q_proj",
        "text_model.encoder.layers.1.mlp.fc1": "text_model_encoder_layers_1_mlp_fc1",
    },
    "text_encoder_2": {
        "text_model.encoder.layers.0.self_attn.out_proj": "text_model_encoder_layers_0_self_attn_out_proj",
        "text_model.encoder.layers.0.mlp.fc2": "text_model_encoder_layers_0_mlp_fc2",
    },
}
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


def factors(shapes, seed=0):
    """{(part, module): (down [r, in], up [out, r])} for weights of the given {(part, module): (out, in)}."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: (torch.randn(RANK, n, generator=generator) / n**0.5, torch.randn(m, RANK, generator=generator) / 2)
        for key, (m, n) in shapes.items()
    }


def write_kohya(path, pairs):
    tensors = {}
    for (part, module), (down, up) in pairs.items():
        name = KOHYA[part] + MODULES[part][module]
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


def write_peft(path, pairs):
    """Through diffusers' own writer; alpha travels in the file's metadata."""
    from diffusers import StableDiffusionXLPipeline

    layers = {part: {} for part in MODULES}
    for (part, module), (down, up) in pairs.items():
        layers[part] |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    metadata = {
        f"{part}_lora_adapter_metadata": {
            "r": RANK,
            "lora_alpha": ALPHA,
            "target_modules": [m.removeprefix("text_model.") for p, m in pairs if p == part],
        }
        for part in MODULES
    }
    StableDiffusionXLPipeline.save_lora_weights(
        path.parent,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers["text_encoder"],
        text_encoder_2_lora_layers=layers["text_encoder_2"],
        weight_name=path.name,
        **metadata,
    )
    return path


def expected_change(pairs, weight):
    """{(part, module): weight * alpha / rank * up down}."""
    return {key: weight * ALPHA / RANK * (up @ down) for key, (down, up) in pairs.items()}
