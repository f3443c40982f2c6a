"""A whole step through the host adapter at SDXL's true size, without weights and without a GPU; see `one_device`."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from one_device import GPU, MixedDevicesError, OneDevice, attention, drawn
from test_guidance_patches import PATCHES, core_node

HALF, FULL = {torch.float16}, {torch.float32}
UNET = {
    "image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "legacy": False, "in_channels": 4,
    "num_classes": "sequential", "adm_in_channels": 2816, "model_channels": 320, "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10], "channel_mult": [1, 2, 4], "transformer_depth_middle": 10,
    "use_linear_in_transformer": True, "context_dim": 2048, "num_head_channels": 64, "use_checkpoint": False,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(host):
    """ComfyUI's SDXL in half precision on meta, as a MODEL that is loaded there."""
    import comfy.model_patcher
    import comfy.supported_models

    settings = comfy.supported_models.SDXL(UNET)
    settings.set_inference_dtype(torch.float16, None, device=GPU)
    with torch.inference_mode():
        inner = settings.get_model({}, device=GPU).to(GPU)
    return comfy.model_patcher.ModelPatcher(inner, load_device=GPU, offload_device=GPU)


@pytest.fixture(scope="module")
def encoder(ours, host):
    """Our copy of the VAE's encoder, on meta."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    with torch.device(GPU), torch.inference_mode(False):
        weights = AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict()
        return ours("nodes.host.encoder").KLEncoder(weights).requires_grad_(False)


@pytest.fixture
def mode(ours, model, encoder, monkeypatch):
    """Attention as on CUDA, memory enough, renders by `drawn`."""
    import comfy.ldm.modules.attention as layers
    import comfy.ldm.modules.diffusionmodules.model as vae_layers
    import comfy.model_management as mm

    made = OneDevice()
    for name in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(layers, name, layers.attention_pytorch)
    monkeypatch.setattr(vae_layers, "vae_attention", lambda: vae_layers.pytorch_attention)
    monkeypatch.setattr(mm, "get_free_memory", lambda *args, **kwargs: 80 << 30)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", partial(attention, made))
    for zone, module in (("unet", model.model.diffusion_model), ("vae", encoder)):
        monkeypatch.setattr(module, "forward", made.watched(module.forward, zone))
    stand_in = ours("dreamer_core.rendering.renderer").Renderer("stand-in", "for tests", partial(drawn, ours))
    monkeypatch.setattr(ours("dreamer_core.rendering.facade"), "find_renderer", lambda name, device: stand_in)
    return made


@pytest.fixture
def step(ours, model, encoder, mode):
    """A function: one step of `official` with the MODEL, or a patched one; its report and what was seen."""
    optimize, prompts = ours("dreamer_core.optimize"), ours("dreamer_core.prompts")
    cond = ours("dreamer_core.teachers.teacher").Conditioning(torch.zeros(1, 77, 2048), torch.zeros(1, 1280))
    gaussians = ours("dreamer_core.initializers").initial_shape("sphere", 1000, torch.Generator().manual_seed(0))

    def made(patched=model, perp_neg=False, **given):
        preset = optimize.PRESETS["official"].config
        given = {"steps": 1, "guidance.stride": 999, "density.start": 0, "density.every": 1, **given}
        config = ours("dreamer_core.setting_values").changed(preset, given)
        words = prompts.PromptConfig("x", perp_neg=perp_neg)
        views = prompts.ViewPrompts(cond, cond, cond, None, cond, cond, blending=words)
        inner = patched.model
        inner.current_patcher = patched
        options = {**patched.model_options, "transformer_options": {**patched.model_options["transformer_options"]}}
        size = {"width": 1024, "height": 1024}
        with torch.inference_mode(False), torch.enable_grad(), mode:
            teacher = ours("nodes.host.sdxl").HostSDXL(inner, encoder, GPU, options, size)
            state = optimize.OptimizationState.create(gaussians.to(GPU), config.learning_rates)
            on_gpu = ours("nodes.running").on_device(views, GPU)
            mode.seen.waits.clear()
            (report,) = optimize.optimize(state, teacher, on_gpu, config)
        return report, mode.seen

    return made


def check(report, seen):
    """The UNet in half, all else in single precision; one wait of ours, and gsplat's."""
    assert seen.heavy == {"unet": HALF, "vae": FULL}
    assert seen.kinds == {torch.float16, torch.float32}
    assert Counter(w for w in seen.waits if not w.startswith("density.py")) == {
        "loop.py:read": 1,
        "gaussians.py:check_finite": 1,
    }
    assert report.network_evaluations >= 5


def test_a_step_at_true_size(step):
    check(*step())


def test_perp_neg(step):
    check(*step(perp_neg=True))


@pytest.mark.parametrize("name", ["RescaleCFG", "PerturbedAttentionGuidance", "CFGNorm", "FreeU_V2"])
def test_patches(step, model, name):
    module, *args = PATCHES[name]
    check(*step(core_node(module, name, model, *args)))


def test_what_waits_is_found(ours, step, monkeypatch):
    """Pooled embeddings on the GPU, which ComfyUI fetches at every call."""
    cond = ours("dreamer_core.teachers.teacher").Conditioning
    everything = ours("dreamer_core.prompts")
    monkeypatch.setattr(
        ours("nodes.running"),
        "on_device",
        lambda views, device: everything.ViewPrompts(
            *(
                c if c is None else cond(c.tokens.to(device), c.pooled.to(device))
                for c in (views.front, views.side, views.back, None, views.negative, views.inversion)
            ),
            blending=views.blending,
        ),
    )
    _, seen = step()
    assert len([w for w in seen.waits if not w.startswith("density.py")]) > 1


def test_what_is_left_behind_is_found(ours, step, monkeypatch):
    monkeypatch.setattr(ours("dreamer_core.cameras").Cameras, "to", lambda self, device: self)
    with pytest.raises(MixedDevicesError):
        step(depth_share=1.0)
