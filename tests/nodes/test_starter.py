"""The starter as MODEL, CLIP and VAE, and what the loader says about files that are not SDXL."""

from __future__ import annotations

import pytest
import torch

from dreamer_core.teachers.teacher import Request


def test_padding_changes_nothing_and_comes_off_again(ours, loaded, miniature):
    """The VAE that ComfyUI holds is 64 wide; the encoder for gradients is as narrow as the file."""
    _, _, vae = loaded
    assert vae.first_stage_model.taesd_encoder[0].weight.shape[0] == 64
    with torch.inference_mode(False):
        encoder = ours("nodes.host.encoder").build_encoder(vae)
    assert encoder.taesd_encoder[0].weight.shape[0] == 16


def test_decoding(ours, loaded, miniature):
    from diffusers import AutoencoderTiny

    model, _, vae = loaded
    reference = AutoencoderTiny.from_pretrained(miniature / "vae")
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = vae.decode(model.model.process_latent_out(z))
        expected = reference.decode(z / reference.config.scaling_factor).sample
    torch.testing.assert_close(found[0], (expected[0].movedim(0, -1) / 2 + 0.5).clamp(0, 1), atol=1e-3, rtol=0)


def test_registries_stay_as_they_are(ours, miniature):
    import comfy.supported_models

    before = list(comfy.supported_models.models), dict(comfy.supported_models.SDXL.unet_config)
    with torch.inference_mode():
        ours("nodes.host.starter").load_starter(miniature)
    assert before == (list(comfy.supported_models.models), dict(comfy.supported_models.SDXL.unet_config))


def test_stock_nodes_work_with_it(loaded):
    """KSampler, VAEDecode, CLIPTextEncode with weights and CLIPSetLastLayer."""
    import nodes

    model, clip, vae = loaded
    with torch.inference_mode():
        positive = nodes.CLIPTextEncode().encode(clip, "a (red:1.3) mug")[0]
        negative = nodes.CLIPTextEncode().encode(nodes.CLIPSetLastLayer().set_last_layer(clip, -1)[0], "")[0]
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        out = nodes.KSampler().sample(model, 0, 2, 5.0, "euler", "normal", positive, negative, latent)[0]
        image = nodes.VAEDecode().decode(vae, out)[0]
    assert image.shape == (1, 64, 64, 3)
    assert bool(torch.isfinite(image).all())


def test_lora_keys_reach_unet_and_text(loaded):
    """What LoraLoader looks up."""
    import comfy.lora

    model, clip, _ = loaded
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v" in keys
    assert any(k.startswith("lora_te1_") for k in comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {}))


def test_missing_starter_is_explained(ours, tmp_path):
    with pytest.raises(ours("dreamer_core.errors").InputError, match="expected the built-in starter"):
        ours("nodes.host.starter").load_starter(tmp_path)


def test_files_that_are_not_sdxl(ours, host, monkeypatch, tmp_path):
    import folder_paths
    from safetensors.torch import save_file

    loader = ours("nodes.loader")
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda _, name: str(tmp_path / name))
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}, tmp_path / "flux.safetensors")
    (tmp_path / "text.safetensors").write_text("not a model")
    for name, what in (("flux.safetensors", "a Flux checkpoint"), ("text.safetensors", "text.safetensors, which is")):
        with pytest.raises(ours("dreamer_core.errors").InputError, match=what):
            loader.load_checkpoint(name)


def test_shipped_starter(ours, execute):
    """The weights in the repository."""
    starter = ours("nodes.host.starter")
    if not (starter.FOLDER / "model_index.json").is_file():
        pytest.skip("starter/checkpoint is not in this checkout")
    model, clip, vae = execute("DreamerXLLoader", checkpoint=ours("nodes.loader").STARTER).args
    reference = ours("dreamer_core.teachers.sdxl.loading").load_sdxl(starter.FOLDER)
    texts = ["a red mug, front view", "a blue striped chair, back view", ""]
    with torch.inference_mode():
        found = ours("nodes.host.conditioning").HostTextEncoder(clip).encode_text(texts)
    expected = reference.encode_text(texts)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-4, rtol=1e-4)
    generator = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(3, 4, 16, 16, generator=generator), torch.tensor([0.1, 1.0, 8.0])
    images = torch.rand(1, 128, 128, 3, generator=generator)
    with (
        torch.inference_mode(False),
        ours("nodes.host.sdxl").loaded_teacher(model, vae, views=1, resolution=128) as (teacher, _),
    ):
        for i, level in enumerate(sigma.tolist()):
            row = slice(i, i + 1)
            (found,) = teacher.predict([Request(x[row], level, expected[row], "positive")])
            wanted = reference.eps(x[row], sigma[row], expected[row])
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(teacher.encode(images), reference.encode(images), atol=1e-4, rtol=1e-4)
