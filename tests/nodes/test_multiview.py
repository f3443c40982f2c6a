"""A multi-view adapter as ComfyUI's patches: equal to the one inside diffusers' UNet, and harmless elsewhere."""

import copy
from contextlib import ExitStack

import pytest
import torch

from dreamer_core.guidance.base import GuidanceConditioning
from dreamer_core.teachers.multiview.files import adapter_for, attention_of, save_adapter
from dreamer_core.teachers.multiview.sampling import sample_group
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.teacher import Request

AZIMUTHS = torch.tensor([0.0, 90.0, 180.0])
TEXT = "0, 90, 180"


@pytest.fixture(scope="module")
def adapter(host, miniature):
    """A random adapter of the miniature, in the folder where the node looks."""
    import folder_paths

    unet = load_sdxl(miniature)._unet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = adapter_for(attention_of(unet), tuple(unet.config.block_out_channels))
    folder = host / "adapters"
    folder.mkdir()
    save_adapter(network, folder / "small.safetensors", torch.float32)
    folder_paths.add_model_folder_path("model_patches", str(folder))
    return folder / "small.safetensors"


@pytest.fixture
def patched(execute, loaded, adapter):
    return execute("DreamerXLMultiView", model=loaded[0], adapter=adapter.name, azimuths=TEXT).args[0]


@pytest.fixture
def cond(ours, loaded):
    with torch.inference_mode():
        encoded = ours("nodes.host.conditioning").HostTextEncoder(loaded[1]).encode_text(["a red mug", ""])
    encoded = encoded.map(lambda t: t.clone())
    positive, negative = (encoded[i : i + 1].expand(3) for i in range(2))
    return GuidanceConditioning(positive, negative, negative)


@pytest.fixture
def teacher(ours, loaded):
    """A function that loads a MODEL as a teacher until the test ends."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))

        def load(model, **options):
            loading = ours("nodes.host.sdxl").loaded_teacher(model, loaded[2], views=3, resolution=128, **options)
            return stack.enter_context(loading)[0]

        yield load


def latents(views=3, seed=0):
    return torch.randn(views, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def both(x, sigma, cond):
    return [Request(x, sigma, cond.positive, "positive"), Request(x, sigma, cond.negative, "negative")]


def relative(a, b):
    return float((a - b).abs().max() / b.std())


def test_a_group_is_that_of_the_diffusers_teacher(teacher, patched, miniature, adapter, cond):
    ours, theirs = teacher(patched), load_sdxl(miniature, multiview=adapter)
    group, expected = ours.grouped(AZIMUTHS), theirs.grouped(AZIMUTHS)
    torch.testing.assert_close(group.sigmas, expected.sigmas, rtol=1e-5, atol=0)
    for sigma in (0.3, 5.0, 30.0):
        x = latents() * (1 + sigma**2) ** 0.5
        for a, b in zip(group.predict(both(x, sigma, cond)), expected.predict(both(x, sigma, cond)), strict=True):
            assert relative(a, b) < 2e-5
    assert relative(group.predict(both(x, 5.0, cond))[0], ours.predict(both(x, 5.0, cond))[0]) > 0.05


def test_a_whole_sampling_is_that_of_the_diffusers_teacher(teacher, patched, miniature, adapter, cond):
    levels = [30.0, 8.0, 2.0, 0.5, 0.0]
    found, expected = (
        sample_group(one.grouped(AZIMUTHS), cond, levels[0] * latents(), levels, 3.0)
        for one in (teacher(patched), load_sdxl(miniature, multiview=adapter))
    )
    assert relative(found, expected) < 1e-4


def test_single_views_are_the_plain_models(teacher, patched, loaded, cond):
    """In the same MODEL, between groups: as if there were no adapter."""
    expected = teacher(loaded[0]).predict(both(latents(), 3.0, cond))
    one = teacher(patched)
    one.grouped(AZIMUTHS).predict(both(latents(), 3.0, cond))
    for a, b in zip(one.predict(both(latents(), 3.0, cond)), expected, strict=True):
        assert torch.equal(a, b)


def test_comfyuis_sampler_draws_groups(patched, cond, loaded, ours, miniature, adapter):
    """KSampler's way: the schedule is the adapter's, and the batch the node's views."""
    import comfy.sample
    import comfy.samplers

    entries = [[[c.tokens[:1], {"pooled_output": c.pooled[:1], "width": 128, "height": 128}]]
               for c in (cond.positive, cond.negative)]  # fmt: skip
    levels = [30.0, 8.0, 2.0, 0.5, 0.0]
    assert patched.get_model_object("model_sampling").sigma_max == pytest.approx(14.61 * 8**0.5, rel=1e-3)
    assert loaded[0].get_model_object("model_sampling").sigma_max == pytest.approx(14.61, rel=1e-3)
    noise = latents()
    with torch.inference_mode():
        out = comfy.sample.sample_custom(
            patched, noise, 3.0, comfy.samplers.sampler_object("euler"), torch.tensor(levels), *entries,
            torch.zeros(3, 4, 16, 16), disable_pbar=True,
        )  # fmt: skip
    theirs = load_sdxl(miniature, multiview=adapter).grouped(AZIMUTHS)
    start = noise * levels[0]  # from zero latents, and not from the highest level
    expected = sample_group(theirs, cond, start, levels, 3.0)
    assert relative(patched.model.process_latent_in(out.clone()), expected) < 1e-3
    refused = pytest.raises(ValueError, match="3 square pictures, one for each azimuth, got 4 of 128 x 128")
    with refused, torch.inference_mode():
        comfy.sample.sample_custom(
                patched, latents(4), 1.0, comfy.samplers.sampler_object("euler"), torch.tensor(levels), *entries,
                torch.zeros(4, 4, 16, 16), disable_pbar=True,
            )  # fmt: skip


def test_a_group_is_never_cut(teacher, patched, cond):
    one = teacher(patched, memory="low")  # two samples at a time
    assert one._max_batch == 2
    found = one.grouped(AZIMUTHS).predict(both(latents(), 3.0, cond))
    expected = teacher(patched).grouped(AZIMUTHS).predict(both(latents(), 3.0, cond))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_other_patches_go_on_working(execute, loaded, adapter, teacher, cond):
    """A patch on self-attention's output, before or after the node, acts on what both give."""

    def halve(n, options):
        return 0.5 * n

    def with_halving(model):
        model = model.clone()
        model.set_model_attn1_output_patch(halve)
        return model

    def add(model):
        return execute("DreamerXLMultiView", model=model, adapter=adapter.name, azimuths=TEXT).args[0]

    x = latents()
    results = [
        teacher(model).grouped(AZIMUTHS).predict(both(x, 3.0, cond))[0]
        for model in (add(loaded[0]), with_halving(add(loaded[0])), add(with_halving(loaded[0])))
    ]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert relative(results[i], results[j]) > 1e-3


def test_the_adapter_is_loaded_by_comfyuis_model_management(patched):
    import comfy.model_management as mm

    (found,) = patched.model_patches_models()
    assert isinstance(found.model, torch.nn.Module)
    mm.load_models_gpu([patched])
    assert any(loaded.model is found for loaded in mm.current_loaded_models)


def test_another_adapter_is_another_run(ours, execute, loaded, adapter):
    def key(model):
        content = ours("nodes.host.identity").Key()
        content.add("the model", model)
        assert content.content().unknown == ()
        return content.content().name

    def patch(azimuths=TEXT):
        return execute("DreamerXLMultiView", model=loaded[0], adapter=adapter.name, azimuths=azimuths).args[0]

    assert key(patch()) == key(patch())
    assert len({key(loaded[0]), key(patch()), key(patch("0, 90, 270"))}) == 3


def test_errors_name_what_is_wrong(execute, loaded, adapter, patched):
    def fails(match, **changed):
        given = {"model": loaded[0], "adapter": adapter.name, **changed}
        with pytest.raises(ValueError, match=match) as error:
            execute("DreamerXLMultiView", **given)
        assert "\n" not in str(error.value)

    where = r"get mvadapter_t2mv_sdxl.safetensors from Hugging Face, huanngzh/mv-adapter"
    fails(rf"Dreamer XL Multi-View: adapter: .*got mvadapter_t2mv_sdxl.safetensors, which is not in .*; {where}",
          adapter="mvadapter_t2mv_sdxl.safetensors")  # fmt: skip
    fails("azimuths: expected degrees from -360 to 360, separated by commas, got '0, 90, x'", azimuths="0, 90, x")
    fails("azimuths: expected 2 to 12 different azimuths", azimuths="0, 360")
    fails("expected a MODEL without a multi-view adapter", model=patched)
    other = copy.copy(loaded[0])
    broken = adapter.with_name("broken.safetensors")
    broken.write_text("<html>")
    fails("got a web page instead of the file itself", model=other, adapter="broken.safetensors")


@pytest.mark.parametrize("first", [True, False])
def test_tiling_of_self_attention_is_refused(execute, loaded, adapter, teacher, cond, first):
    """HyperTile's way: tokens in tiles, each a sample of its own, put together again behind self-attention."""

    def tiled(model):
        model = model.clone()
        model.set_model_attn1_patch(lambda n, c, v, _: tuple(t.unflatten(1, (4, -1)).flatten(0, 1) for t in (n, c, v)))
        model.set_model_attn1_output_patch(lambda n, _: n.unflatten(0, (-1, 4)).flatten(1, 2))
        return model

    def add(model):
        return execute("DreamerXLMultiView", model=model, adapter=adapter.name, azimuths=TEXT).args[0]

    model = add(tiled(loaded[0])) if first else tiled(add(loaded[0]))
    one = teacher(model)
    assert all(eps.isfinite().all() for eps in one.predict(both(latents(), 3.0, cond)))  # single views have no trouble
    with pytest.raises(ValueError, match="whose patches keep the shape of self-attention"):
        one.grouped(AZIMUTHS).predict(both(latents(), 3.0, cond))


def test_optimize_asks_about_groups(execute, loaded, patched, ours, monkeypatch):
    seen = []
    sdxl = ours("nodes.host.sdxl").HostSDXL
    grouped = sdxl.grouped
    monkeypatch.setattr(sdxl, "grouped", lambda self, azimuths: seen.append(len(azimuths)) or grouped(self, azimuths))
    start = execute("DreamerXLInitialize", source={"source": "sphere", "count": 60}).args[0]
    prompt = execute("DreamerXLPrompt", clip=loaded[1], prompt="a red mug").args[0]
    given = {"vae": loaded[2], "prompt": prompt, "splat": start, "preset": "starter", "seed": 0, "final_views": 1}
    given |= {"steps": 2, "views": 1, "resolution": 64, "multiview_share_first": 1.0, "multiview_share_last": 1.0}
    made = execute("DreamerXLOptimize", model=patched, **given).args[0]
    assert seen == [3, 3]
    assert made.positions.isfinite().all()
