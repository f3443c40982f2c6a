"""The adapter: a ComfyUI MODEL and VAE give the numbers that diffusers gives, and are handed back untouched."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from dreamer_core.teachers.teacher import Request

PROMPTS = ["a red mug, front view", "", "a blue view of the green photo"]


@pytest.fixture(scope="module")
def reference(ours, miniature):
    """The same weights through diffusers."""
    return ours("dreamer_core.teachers.sdxl.loading").load_sdxl(miniature)


@pytest.fixture
def teacher(ours, loaded):
    model, _, vae = loaded
    with torch.inference_mode(False), ours("nodes.host.sdxl").loaded_teacher(model, vae, views=2, resolution=128) as t:
        yield t[0]


def inputs(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, 16, 16, generator=generator), torch.tensor([0.05, 0.9, 9.0])[:batch]


def eps(teacher, x, sigma, cond):
    """Noise of every sample at its own sigma."""
    rows = [slice(i, i + 1) for i in range(len(x))]
    found = teacher.predict([Request(x[r], float(sigma[r]), cond[r], "positive") for r in rows])
    return torch.cat(found)


def test_text(ours, loaded, reference):
    with torch.inference_mode():
        found = ours("nodes.host.conditioning").HostTextEncoder(loaded[1]).encode_text(PROMPTS)
    expected = reference.encode_text(PROMPTS)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-4, rtol=1e-4)


MANY = "red, blue, green, a photo of a mug with a very long handle, " * 6
TEXTS = {
    "weights": "a (red:1.4) ((mug)), (front (view:0.7):1.2)",
    "brackets": r"a \(red\) mug (unclosed",
    "unbalanced": "a red) (mug) of (blue",
    "no number": "(a: b) (c:x) (:1.2) ()",
    "long": MANY,
    "long and weighted": f"{MANY} (a red mug:1.3), {MANY}",
    "one long word": "z" * 200,
    "short pieces at the edge": "".join(f"(a mug{i}:1.{i})" for i in range(60)),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_weights_and_long_prompts_are_comfyuis(ours, loaded, reference, text):
    """The core's own reading of a prompt against ComfyUI's."""
    with torch.inference_mode():
        found = ours("nodes.host.conditioning").HostTextEncoder(loaded[1]).encode_text([text])
    expected = reference.encode_text([text])
    assert found.tokens.shape == expected.tokens.shape
    assert (found.tokens.shape[1] > 77) == (len(text) > 150)
    torch.testing.assert_close(expected.tokens, found.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(expected.pooled, found.pooled, atol=1e-4, rtol=1e-4)


def test_prompts_of_different_lengths(ours, loaded, reference):
    texts = ["a mug", MANY, ""]
    with torch.inference_mode():
        found = ours("nodes.host.conditioning").HostTextEncoder(loaded[1]).encode_text(texts)
    expected = reference.encode_text(texts)
    assert found.tokens.shape[1] % 77 == 0
    torch.testing.assert_close(expected.tokens, found.tokens, atol=1e-4, rtol=1e-4)


def test_eps_per_sample_sigma_and_prompt(teacher, reference):
    cond = reference.encode_text(PROMPTS)
    x, sigma = inputs()
    found = eps(teacher, x, sigma, cond)
    torch.testing.assert_close(found, reference.eps(x, sigma, cond), atol=1e-4, rtol=1e-4)
    assert not found.is_inference()
    together = teacher.predict([Request(x, 0.9, cond, "positive")])[0]
    alone = [teacher.predict([Request(x[i : i + 1], 0.9, cond[i : i + 1], "positive")])[0] for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(teacher.sigmas, reference.sigmas, rtol=1e-5, atol=0)


def test_small_batches_when_memory_is_short(teacher, reference, monkeypatch):
    cond = reference.encode_text(PROMPTS)
    x, sigma = inputs()
    whole = eps(teacher, x, sigma, cond)
    monkeypatch.setattr(type(teacher), "_batch_size", lambda self, x: 2)
    torch.testing.assert_close(eps(teacher, x, sigma, cond), whole, atol=1e-4, rtol=1e-4)


def test_encoder_and_its_gradient(teacher, reference, loaded):
    images = torch.rand(2, 128, 128, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, expected = teacher.encode(images), reference.encode(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((z * weights).sum(), images)[0] for z in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    # ComfyUI's own VAE node gives the same latents, in its unscaled space.
    model, _, vae = loaded
    with torch.inference_mode():
        stock = model.model.process_latent_in(vae.encode(images.detach()))
    torch.testing.assert_close(found, stock, atol=1e-3, rtol=1e-3)


def test_kl_encoder(ours, host, loaded):
    """SDXL's own kind of VAE: the private encoder equals ComfyUI's, with and without recomputing blocks."""
    import comfy.ldm.models.autoencoder
    import comfy.sd

    layout = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    with torch.inference_mode():
        params = {"ddconfig": layout, "embed_dim": 4}
        network = comfy.ldm.models.autoencoder.AutoencoderKL(**params)
        generator = torch.Generator().manual_seed(0)
        for name, p in network.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1))
            if "norm" in name and name.endswith("weight"):
                p.fill_(1.0)
        vae = comfy.sd.VAE(sd=network.state_dict(), config={"params": params})
        images = torch.rand(1, 64, 64, 3, generator=generator)
        stock = loaded[0].model.process_latent_in(vae.encode(images))
    with (
        torch.inference_mode(False),
        ours("nodes.host.sdxl").loaded_teacher(loaded[0], vae, views=1, resolution=64) as (teacher, _),
    ):
        images = images.clone().requires_grad_()
        found = teacher.encode(images)
        torch.testing.assert_close(found, stock.clone(), atol=1e-4, rtol=1e-4)
        (gradient,) = torch.autograd.grad(found.sum(), images)
        teacher._encoder.recompute = True
        (again,) = torch.autograd.grad(teacher.encode(images).sum(), images)
        torch.testing.assert_close(gradient, again)
        assert gradient.abs().max() > 0


def test_v_prediction_patch_takes_effect(ours, loaded, reference):
    """eps = (x - denoised) / sigma for whatever the MODEL predicts: here the same network read as v."""
    import comfy_extras.nodes_model_advanced as advanced

    model, _, vae = loaded
    with torch.inference_mode():
        patched = advanced.ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]
    cond = reference.encode_text(PROMPTS[:1])
    x, sigma = inputs(1)
    s = float(sigma)
    with (
        torch.inference_mode(False),
        ours("nodes.host.sdxl").loaded_teacher(patched, vae, views=1, resolution=128) as (teacher, _),
    ):
        found = eps(teacher, x, sigma, cond)
    v = reference.eps(x, sigma, cond)  # what the network puts out
    denoised = x / (s * s + 1) - v * s / (s * s + 1) ** 0.5
    torch.testing.assert_close(found, (x - denoised) / s, atol=1e-3, rtol=1e-3)


def lora_for(model, strength):
    """The model with a random patch on one attention weight, as LoraLoader leaves it."""
    name = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v.weight"
    weight = model.model.state_dict()[name]
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    patched = model.clone()
    assert patched.add_patches({name: ("diff", (delta,))}, strength) == [name]
    return patched


def test_lora_takes_effect_and_leaves_the_model_alone(ours, loaded, reference):
    model, _, vae = loaded
    cond = reference.encode_text(PROMPTS[:1])
    x, sigma = inputs(1)
    found = []
    for candidate in (model, lora_for(model, 1.0), model):
        with (
            torch.inference_mode(False),
            ours("nodes.host.sdxl").loaded_teacher(candidate, vae, views=1, resolution=128) as (teacher, _),
        ):
            found.append(eps(teacher, x, sigma, cond))
    assert (found[0] - found[1]).abs().max() > 1e-3
    torch.testing.assert_close(found[0], found[2])


def test_gradient_equals_the_cores(ours, teacher, reference):
    """A whole step with the host's teacher and with diffusers: the same gradient of every parameter.

    Adam's first moment after one step is a tenth of it; its step itself is nearly the sign, rounding errors included.
    """
    optimize, prompts = ours("dreamer_core.optimize"), ours("dreamer_core.prompts")
    config = replace(optimize.PRESETS["starter"].config, steps=1, resolution=64)
    views = prompts.encode_prompts(reference, prompts.PromptConfig("a red mug"))
    ends = []
    for predictor in (teacher, reference):
        generator = torch.Generator().manual_seed(0)
        start = ours("dreamer_core.initializers").initial_shape("sphere", 200, generator)
        state = optimize.OptimizationState.create(start, config.learning_rates)
        (report,) = optimize.optimize(state, predictor, views, config, "numba")
        ends.append((state.tensors(), report))
    (host, host_report), (core, core_report) = ends
    assert host_report.gradient_norm == pytest.approx(core_report.gradient_norm, rel=1e-4)
    assert host_report.clipped == pytest.approx(core_report.clipped, abs=1e-3)
    for name in ("means", "scales", "opacities", "sh0"):  # a round Gaussian has no gradient of rotation
        found, expected = host[f"adam.{name}.exp_avg"], core[f"adam.{name}.exp_avg"]
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_everything_is_handed_back(ours, loaded):
    """After an error inside: nothing of ours is loaded, the MODEL has no patcher, weights are as before."""
    import comfy.model_management as mm

    host = ours("nodes.host.sdxl")
    model, _, vae = loaded
    before = {k: v.clone() for k, v in model.model.state_dict().items()}

    def fail():
        with torch.inference_mode(False), host.loaded_teacher(model, vae, views=1, resolution=128):
            names = [type(m.model.model).__name__ for m in mm.current_loaded_models]
            assert "TinyEncoder" in names
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    gc.collect()
    assert not any(type(m.model.model).__name__ == "TinyEncoder" for m in mm.current_loaded_models)
    assert model.model.current_patcher is None
    assert model.additional_models == {}
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_cancelling_reaches_the_teacher(teacher, reference):
    import comfy.model_management as mm

    x, sigma = inputs(1)
    cond = reference.encode_text(PROMPTS[:1])
    for call in (lambda: eps(teacher, x, sigma, cond), lambda: teacher.encode(torch.rand(1, 64, 64, 3))):
        mm.interrupt_current_processing(True)
        with pytest.raises(mm.InterruptProcessingException):
            call()


def test_other_models_are_refused(ours, host):
    import comfy.sd

    adapter, error = ours("nodes.host.sdxl"), ours("dreamer_core.errors").InputError

    with pytest.raises(error, match="model: expected an SDXL diffusion model, got none"):
        adapter.check_model(None)
    with torch.inference_mode(False):
        for wrong in (None, comfy.sd.VAE(sd={})):
            with pytest.raises(error, match="vae: expected a VAE, got none"):
                ours("nodes.host.encoder").build_encoder(wrong)
    conditioning = ours("nodes.host.conditioning")
    tokens, pooled = torch.zeros(1, 77, 96), torch.zeros(1, 64)
    plain = [[tokens, {"pooled_output": pooled, "width": 640}]]
    assert conditioning.from_comfy(plain, "front")[1] == {"width": 640}
    for bad, text in (
        (plain * 2, "2 entries"),
        ([[tokens, {}]], "without a pooled embedding"),
        ([[tokens, {"pooled_output": pooled, "control": object()}]], "one with control"),
        ([[tokens, {"pooled_output": pooled, "start_percent": 0.1}]], "one with start_percent"),
    ):
        with pytest.raises(error, match=text):
            conditioning.from_comfy(bad, "front")


KINDS = ("DoRA by inputs", "DoRA by outputs", "LoHa", "LoKr", "LoKr of factors", "a difference")


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_file_means_the_same_on_the_command_line(ours, loaded, miniature, tmp_path, kind):
    """ComfyUI's own loader in the node, ours in the core, the same file: the same noise."""
    import comfy.sd
    import comfy.utils
    from safetensors.torch import save_file

    model, clip, vae = loaded
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_q"

    def random(*shape, seed=0):
        return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))

    width = 128
    down, up = random(2, width), random(width, 2, seed=1)
    plain = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    parts = {
        "DoRA by inputs": {**plain, "dora_scale": random(1, width).abs() + 1},
        "DoRA by outputs": {**plain, "dora_scale": random(width, 1).abs() + 1},
        "LoHa": {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": random(width, 2, seed=2),
                 "hada_w2_b": random(2, width, seed=3), "alpha": torch.tensor(1.0)},
        "LoKr": {"lokr_w1": random(4, 4), "lokr_w2": random(width // 4, width // 4), "alpha": torch.tensor(1.0)},
        "LoKr of factors": {"lokr_w1": random(4, 4), "lokr_w2_a": random(width // 4, 2),
                            "lokr_w2_b": random(2, width // 4), "alpha": torch.tensor(1.0)},
        "a difference": {"diff": up @ down},
    }[kind]  # fmt: skip
    path = tmp_path / "style.safetensors"
    save_file({f"{layer}.{name}": tensor for name, tensor in parts.items()}, path)
    load_sdxl = ours("dreamer_core.teachers.sdxl.loading").load_sdxl
    core, before = load_sdxl(miniature, loras=[(path, 0.7)]), load_sdxl(miniature)
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(model, clip, comfy.utils.load_torch_file(str(path)), 0.7, 0.7)
    cond = before.encode_text(PROMPTS[:1])
    x, _ = inputs(1)
    level = torch.tensor([0.9])
    with (
        torch.inference_mode(False),
        ours("nodes.host.sdxl").loaded_teacher(patched, vae, views=1, resolution=128) as (teacher, _),
    ):
        found = eps(teacher, x, level, cond)
    torch.testing.assert_close(found, core.eps(x, level, cond), atol=1e-4, rtol=1e-4)
    assert (found - before.eps(x, level, cond)).abs().max() > 1e-3
