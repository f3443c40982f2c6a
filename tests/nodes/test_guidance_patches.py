"""What a user's nodes add to a MODEL takes part in guidance as it does in ComfyUI's own samplers."""

from __future__ import annotations

import importlib
import math

import pytest
import torch

from dreamer_core.guidance import GuidanceConditioning, Timesteps, WeightedNegative, guided_noise
from dreamer_core.guidance.tsm import TSM
from dreamer_core.teachers.noise_levels import noise_level, scaled_linear_sigmas
from dreamer_core.teachers.teacher import Request

PROMPTS = ["a red mug, front view", "", "a blue view of the green photo", "blurry"]
SCALE = 5.0


@pytest.fixture
def teacher(ours, loaded):
    """A function that loads a MODEL as a teacher until the test ends."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))

        def load(model):
            context = ours("nodes.host.sdxl").loaded_teacher(model, loaded[2], views=2, resolution=128)
            return stack.enter_context(context)[0]

        yield load


@pytest.fixture
def cond(ours, loaded):
    """Positive, negative and inversion of two views, and one negative of Perp-Neg."""
    with torch.inference_mode():
        encoded = ours("nodes.host.conditioning").HostTextEncoder(loaded[1]).encode_text(PROMPTS)
    encoded = encoded.map(lambda t: t.clone())

    def two(i):
        return encoded[i : i + 1].expand(2)

    return GuidanceConditioning(two(0), two(3), two(1), (WeightedNegative(two(2), torch.tensor([-1.0, -0.5])),))


def without_perp_neg(cond):
    return GuidanceConditioning(cond.positive, cond.negative, cond.inversion)


def latents(seed=0):
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def core_node(module, name, model, *args):
    """The patched MODEL of one of ComfyUI's own nodes."""
    node = getattr(importlib.import_module(f"comfy_extras.nodes_{module}"), name)
    with torch.inference_mode():
        return node().patch(model, *args)[0] if hasattr(node, "patch") else node.execute(model, *args).args[0]


def comfyuis_own(model, x, sigma, cond, scale):
    """Guided noise of one call of ComfyUI's sampler, by its public `comfy.samplers.sample`, for x = z + sigma n."""
    denoised = comfyuis_picture(model, x, sigma, cond, scale)
    return (x - model.model.process_latent_in(denoised)) / sigma


def comfyuis_picture(model, x, sigma, cond, scale):
    """The latents, as VAEs have them, that ComfyUI's sampler finds behind x in the MODEL's own form."""
    import comfy.samplers

    class OneCall(comfy.samplers.Sampler):
        def sample(self, wrapped, sigmas, extra_args, callback, noise, *rest):
            return wrapped(noise, sigmas[0].expand(len(noise)), **extra_args)

    def entries(c):
        return [[c.tokens[:1], {"pooled_output": c.pooled[:1], "width": 128, "height": 128}]]

    with torch.inference_mode():
        return comfy.samplers.sample(
            *(model, x, entries(cond.positive), entries(cond.negative), scale, model.load_device, OneCall()),
            torch.tensor([sigma, 0.0]),
            latent_image=torch.zeros_like(x),
            model_options=model.model_options,
        )


PATCHES = {
    "none": None,
    "RescaleCFG": ("model_advanced", 0.7),
    "PerturbedAttentionGuidance": ("pag", 3.0),
    "SelfAttentionGuidance": ("sag", 0.8, 2.0),
    "CFGZeroStar": ("cfg",),
    "CFGNorm": ("cfg", 0.5),
    "TCFG": ("tcfg",),
    "Mahiro": ("mahiro",),
    "APG": ("apg", 1.0, 5.0, 0.0),
    "FreSca": ("fresca", 0.9, 1.4, 4),
    "NAGuidance": ("nag", 5.0, 0.5, 1.5),
    "FreeU_V2": ("freelunch", 1.3, 1.4, 0.9, 0.2),
}


@pytest.mark.parametrize("name", PATCHES)
def test_guided_noise_is_comfyuis_own(teacher, loaded, cond, name):
    model = loaded[0]
    if PATCHES[name] is not None:
        module, *args = PATCHES[name]
        model = core_node(module, name, model, *args)
    x, cond = latents() * 4.0, without_perp_neg(cond)
    expected = comfyuis_own(model, x, 3.0, cond, SCALE).clone()
    found, _, samples = guided_noise(teacher(model), x, 3.0, cond, SCALE)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert samples == 2
    if name != "none":
        plain, _, _ = guided_noise(teacher(loaded[0]), x, 3.0, cond, SCALE)
        assert (found - plain).abs().max() > 1e-3


def test_patches_of_guidance_see_perp_negs_direction(teacher, loaded, cond):
    """RescaleCFG applies to the sum of positive and Perp-Neg's directions."""
    x = latents()
    patched, _, samples = guided_noise(
        teacher(core_node("model_advanced", "RescaleCFG", loaded[0], 0.7)), x, 3.0, cond, SCALE
    )
    plain, _, _ = guided_noise(teacher(loaded[0]), x, 3.0, cond, SCALE)
    alone, _, _ = guided_noise(teacher(loaded[0]), x, 3.0, without_perp_neg(cond), SCALE)
    assert samples == 3
    assert (patched - plain).abs().max() > 1e-3
    assert (plain - alone).abs().max() > 1e-3


class PictureAdapter:
    """An attn2 patch of IP-Adapter's shape: the picture reaches the positive entry, something empty the other."""

    def __init__(self, weight):
        self.weight, self.seen = weight, []

    def __call__(self, q, k, v, extra_options):
        self.seen.append((tuple(extra_options["cond_or_uncond"]), len(q)))
        of_entry = len(q) // len(extra_options["cond_or_uncond"])
        picture = [1.0, 0.0]
        added = torch.cat([torch.full((of_entry, 1, 1), picture[i]) for i in extra_options["cond_or_uncond"]])
        return q + self.weight * added.to(q), k, v


def test_a_picture_reaches_the_positive_side_only(teacher, loaded, cond):
    """Its effect grows with its weight and is not cancelled; inversion and Perp-Neg's negatives are unconditional."""
    x, z = latents(), latents(1)
    also = [Request(z, 1.0, cond.inversion, "inversion")]
    plain = guided_noise(teacher(loaded[0]), x, 3.0, cond, SCALE, also)
    effects = []
    for weight in (0.0, 0.5, 2.0):
        adapter, model = PictureAdapter(weight), loaded[0].clone()
        model.set_model_attn2_patch(adapter)
        guided, rest, samples = guided_noise(teacher(model), x, 3.0, cond, SCALE, also)
        assert samples == 4
        assert {entries for entries, _ in adapter.seen} <= {(0, 1), (1, 0), (0,), (1,)}
        rows = sum(n for entries, n in adapter.seen)
        assert rows % (2 * samples) == 0  # two views of each request
        torch.testing.assert_close(rest[0], plain[1][0], atol=1e-5, rtol=1e-5)
        effects.append(float((guided - plain[0]).abs().mean()))
    assert effects[0] < 1e-5 < effects[1] < effects[2]


def test_tsm_makes_the_evaluations_it_counts(teacher, loaded, cond):
    """Two views at t = 400: two steps of inversion, the end of the path, three at t; each network call counted."""
    calls = []
    steps = Timesteps(t=400, s=320, stride=200)
    mine = teacher(loaded[0])
    network = loaded[0].model.diffusion_model
    handle = network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    try:
        result = TSM()(mine, latents(), latents(1), steps, without_perp_neg(cond))
    finally:
        handle.remove()
    assert result.samples == 2 + 1 + 3
    assert calls == [2, 2, 2, 4, 2]


def test_views_stay_together_when_memory_is_short(teacher, loaded, cond, monkeypatch):
    """Both entries of a view are in one call, however few views there are at a time."""
    adapter, model = PictureAdapter(0.5), loaded[0].clone()
    model.set_model_attn2_patch(adapter)
    mine, x = teacher(model), latents()
    whole, _, _ = guided_noise(mine, x, 3.0, without_perp_neg(cond), SCALE)
    adapter.seen.clear()
    monkeypatch.setattr(type(mine), "_batch_size", lambda self, x: 1)
    parts, _, _ = guided_noise(mine, x, 3.0, without_perp_neg(cond), SCALE)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    assert adapter.seen
    assert all(sorted(entries) == [0, 1] and n == 2 for entries, n in adapter.seen)


@pytest.fixture
def on_two(ours, loaded, miniature):
    """The MODEL with a copy on another device, as ComfyUI's multi-GPU node makes it, and what their networks are given.

    Simulated with two names of the processor.
    """
    with torch.inference_mode():
        model, copy = loaded[0].clone(), ours("nodes.host.starter").load_starter(miniature)[0]
    copy.load_device, copy.is_multigpu_base_clone = torch.device("cpu", 0), True
    model.set_additional_models("multigpu", [copy])
    seen = []
    handles = [
        patcher.model.diffusion_model.register_forward_pre_hook(lambda _, args, n=name: seen.append((n, len(args[0]))))
        for name, patcher in (("first", model), ("second", copy))
    ]
    yield model, seen
    for handle in handles:
        handle.remove()


def test_two_devices_share_a_view(ours, teacher, loaded, cond, on_two):
    """ComfyUI's multi-GPU split: each side goes to its own copy."""
    (model, seen), x, cond = on_two, latents(), without_perp_neg(cond)
    found, _, _ = guided_noise(teacher(model), x, 3.0, cond, SCALE)
    assert sorted(seen) == [("first", 2), ("second", 2)]
    plain, _, _ = guided_noise(teacher(loaded[0]), x, 3.0, cond, SCALE)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("patch", ["none", "RescaleCFG"])
def test_two_devices_share_the_views(ours, teacher, loaded, cond, on_two, patch):
    """Both sides of a view, its picture and the way back are on one device; the other has the other view."""
    model, seen = on_two
    if PATCHES[patch] is not None:
        model = core_node(PATCHES[patch][0], patch, model, *PATCHES[patch][1:])
    apart, alone = ours("dreamer_core.optimize.apart"), teacher(loaded[0].clone())
    both_ways = ours("dreamer_core.optimize.encoding").encode_both_ways
    x, cond, images = latents(), without_perp_neg(cond), torch.rand(2, 128, 128, 3)
    mine = teacher(model)
    encoders = [one._encoder for one in mine.replicas]
    assert len({id(one) for one in encoders}) == 2
    with apart.views_apart(mine, 2, 128, torch.device("cpu")) as shared:
        found, _, _ = guided_noise(shared, x, 3.0, cond, SCALE)
        z, back = both_ways(shared, images)
        gradient = back(x)
    assert sorted(seen) == [("first", 2), ("second", 2)]
    model.set_additional_models("multigpu", [])
    plain, _, _ = guided_noise(teacher(model), x, 3.0, cond, SCALE)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    plain_z, plain_back = both_ways(alone, images)
    torch.testing.assert_close(z, plain_z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient, plain_back(x), atol=1e-4, rtol=1e-4)


def test_fewer_views_than_devices_are_not_shared(ours, loaded, on_two):
    further = ours("nodes.host.devices").further_devices
    assert [len(further(on_two[0], views)) for views in (1, 2, 3)] == [0, 1, 1]
    assert further(loaded[0], 4) == []


@pytest.mark.parametrize("method", ["tsm", "csd", "sds_bridge"])
def test_the_node_says_what_has_no_effect(ours, loaded, method):
    """RescaleCFG where nothing is combined; EasyCache with every method, because there is no sampling loop."""
    methods = {m.name: m() for m in ours("dreamer_core.guidance").METHODS}
    note = ours("nodes.running").without_effect
    assert note(methods[method], loaded[0]) == ""
    rescaled = core_node("model_advanced", "RescaleCFG", loaded[0], 0.7)
    text = f"no effect, {method} combines no predictions: RescaleCFG"
    assert note(methods[method], rescaled) == ("" if method == "tsm" else text)
    cached = core_node("easycache", "EasyCacheNode", loaded[0], 0.2, 0.15, 0.95, False)
    assert note(methods[method], cached) == "no effect, there is no sampling loop: easycache"


SCHEDULES = {
    "lcm": ("model_advanced", "ModelSamplingDiscrete", ("lcm", False)),
    "v, zero terminal SNR": ("model_advanced", "ModelSamplingDiscrete", ("v_prediction", True)),
    "eps, zero terminal SNR": ("model_advanced", "ModelSamplingDiscrete", ("eps", True)),
    "edm": ("model_advanced", "ModelSamplingContinuousEDM", ("edm", 120.0, 0.002)),
    "edm of Playground 2.5": ("model_advanced", "ModelSamplingContinuousEDM", ("edm_playground_v2.5", 120.0, 0.002)),
    "v of CosXL": ("model_advanced", "ModelSamplingContinuousEDM", ("v_prediction", 120.0, 0.002)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_timesteps_are_noise_levels(teacher, loaded, cond, name):
    """Whatever a MODEL's own schedule is, t = 980 is SDXL's 13.0 and t = 500 its 1.62, as near as the MODEL has one."""
    module, node, args = SCHEDULES[name]
    mine = teacher(core_node(module, node, loaded[0], *args))
    published = scaled_linear_sigmas()
    widest = float((mine.sigmas[1:] / mine.sigmas[:-1]).max())  # between two neighbours
    for t in (21, 500, 980):
        level = noise_level(mine.sigmas, t)
        assert level in mine.sigmas.tolist()
        assert abs(math.log(level / float(published[t]))) <= math.log(widest)
    steps = Timesteps(t=980, s=900, stride=200)
    result = TSM()(mine, latents(), latents(1), steps, without_perp_neg(cond))
    assert torch.isfinite(result.gradient).all()
    assert result.samples == math.ceil(899 / 200) + 1 + 3


FORMS = {
    "eps": (None, 1.0),
    "v, zero terminal SNR": (SCHEDULES["v, zero terminal SNR"], 1.0),
    "x0": (("model_advanced", "ModelSamplingDiscrete", ("x0", False)), 1.0),
    "edm": (SCHEDULES["edm"], 1.0),
    "edm of Playground 2.5": (SCHEDULES["edm of Playground 2.5"], 0.5),
    "flow matching": (("model_advanced", "ModelSamplingSD3", (3.0,)), None),
}
"""Patch, and the deviation of the clean latents in the MODEL's own form; None for (1 - s) z + s n."""


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_noise_is_asked_at_the_same_signal_to_noise(teacher, loaded, cond, name):
    """z + 3 n, whatever the MODEL calls that: the noise that its own sampler finds there."""
    patch, deviation = FORMS[name]
    model = loaded[0] if patch is None else core_node(patch[0], patch[1], loaded[0], *patch[2])
    cond, sigma = without_perp_neg(cond), 3.0
    clean, noise = 0.5 * latents(1), latents(2)
    if deviation is None:
        own, level = 0.25 * clean + 0.75 * noise, 0.75
    else:
        own, level = deviation * (clean + sigma * noise), deviation * sigma
    latent_format = model.get_model_object("latent_format")
    found = latent_format.process_in(comfyuis_picture(model, own, level, cond, SCALE).clone()) / (deviation or 1.0)
    x = clean + sigma * noise
    mine = teacher(model)
    guided, _, _ = guided_noise(mine, x, sigma, cond, SCALE)
    torch.testing.assert_close(guided, (x - found) / sigma, atol=5e-4, rtol=5e-4)
    assert mine.sigmas.isfinite().all()
    assert (mine.sigmas.diff() > 0).all()


def test_pictures_have_the_same_deviation_for_playground(teacher, loaded):
    """Its VAE's latents are brought to a deviation of 0.5 for the network; guidance sees them at 1."""
    module, node, args = SCHEDULES["edm of Playground 2.5"]
    model = core_node(module, node, loaded[0], *args)
    pictures = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    z = teacher(model).encode(pictures)
    latent_format = model.get_model_object("latent_format")
    plain = teacher(loaded[0]).encode(pictures)
    raw = loaded[0].get_model_object("latent_format").process_out(plain)
    torch.testing.assert_close(z, latent_format.process_in(raw) / 0.5, atol=1e-4, rtol=1e-4)


def test_flow_matching_in_playgrounds_latents(ours, loaded):
    """(1 - s) d z + s n is d z + d sigma n, times 1 - s, at s = d sigma / (1 + d sigma); here d = 1/2, sigma = 3."""
    module, node, args = SCHEDULES["edm of Playground 2.5"]
    model = core_node("model_advanced", "ModelSamplingSD3", core_node(module, node, loaded[0], *args), 3.0)
    form = ours("nodes.host.noise").noise_form(model)
    assert (form.deviation, form.flow, form.sigma(3.0)) == (0.5, True, pytest.approx(0.6))
    x = latents()
    torch.testing.assert_close(form.scaled(x, 3.0), 0.4 * 0.5 * x)
    torch.testing.assert_close(form.levels(torch.tensor([0.6, 1.0])), torch.tensor([3.0]).double())


@pytest.mark.parametrize("kind", ["img_to_img", "img_to_img_flow"])
def test_what_does_not_denoise_is_refused(ours, loaded, kind):
    model = core_node("model_advanced", "ModelSamplingDiscrete", loaded[0], kind, False)
    with pytest.raises(
        ours("dreamer_core.errors").InputError, match=r"model.*predicts eps, v, x0 or a flow.*IMG_TO_IMG"
    ):
        ours("nodes.host.noise").noise_form(model)
