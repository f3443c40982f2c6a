"""Configurations read off tensor shapes: SDXL base's published ones from its real shapes, without its weights."""

import pytest
import torch

from dreamer_core.teachers.safetensors_header import Header
from dreamer_core.teachers.sdxl.configs import (
    TEXT_2_PREFIX,
    TEXT_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    text_config,
    text_config_2,
    unet_config,
    vae_config,
)
from dreamer_core.teachers.sdxl.original_layout import (
    original_checkpoint,
    original_text,
    original_text_2,
    original_unet,
    original_vae,
)

# stabilityai/stable-diffusion-xl-base-1.0: unet/, vae/, text_encoder/ and text_encoder_2/config.json
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
TEXT_2 = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
SHARED = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 2, "layer_norm_eps": 1e-5}


@pytest.fixture(scope="module")
def header():
    """Names and shapes of SDXL base's single file, from models without memory."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET).state_dict()
        vae = AutoencoderKL(**VAE).state_dict()
        text = CLIPTextModel(CLIPTextConfig(**TEXT, **SHARED, projection_dim=768)).state_dict()
        text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2, **SHARED, projection_dim=1280)).state_dict()
    tensors = original_checkpoint(
        unet=original_unet(unet, 2, attends_up=[True, True, False]),
        vae=original_vae(vae, levels=4),
        text=original_text(text),
        text_2=original_text_2(text_2),
    )
    return Header({name: tuple(value.shape) for name, value in tensors.items()}, {})


def test_the_unet_of_sdxl_base(header):
    inferred = unet_config(header.stripped(UNET_PREFIX), pooled_dim=1280)
    assert inferred == {**UNET, "_class_name": "UNet2DConditionModel"}


def test_the_vae_of_sdxl_base(header):
    inferred = vae_config(header.stripped(VAE_PREFIX))
    assert VAE.items() <= inferred.items()
    assert inferred["use_quant_conv"]
    assert inferred["use_post_quant_conv"]


def test_the_text_encoders_of_sdxl_base(header):
    first, second = text_config(header.stripped(TEXT_PREFIX)), text_config_2(header.stripped(TEXT_2_PREFIX))
    assert (TEXT | SHARED).items() <= first.items()
    assert (TEXT_2 | SHARED).items() <= second.items()
    assert second["projection_dim"] == 1280


def test_names_and_shapes_that_the_published_file_is_known_to_have(header):
    """From the original's model definition (stability-ai/generative-models), not from this code."""
    known = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight": (640, 2048),
        "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight": (10240, 1280),
        "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280),
        "model.diffusion_model.output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.output_blocks.8.0.in_layers.2.weight": (320, 640, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.time_embed.2.bias": (1280,),
        "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
        "first_stage_model.encoder.down.2.block.0.nin_shortcut.weight": (512, 256, 1, 1),
        "first_stage_model.encoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.bias": (5120,),
        "conditioner.embedders.1.model.text_projection": (1280, 1280),
        "conditioner.embedders.1.model.positional_embedding": (77, 1280),
    }
    assert known.items() <= header.shapes.items()
    assert sum(name.startswith(UNET_PREFIX) for name in header) == 1680
    assert sum(name.startswith(VAE_PREFIX) for name in header) == 248
