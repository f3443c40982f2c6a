"""The SDXL adapter on a tiny random SDXL of the same architecture, in both file layouts."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamer_core.errors import InputError
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.teacher import Conditioning

pytestmark = pytest.mark.usefixtures("single_threaded")

PROMPTS = ["a red cube, front view", "", "a blue sphere"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Whoever opens a connection fails."""
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl_dir):
    return load_sdxl(tiny_sdxl_dir, keep_decoder=True)


@pytest.fixture(scope="module")
def prompts(sdxl):
    return sdxl.encode_text(PROMPTS)


def latents(batch=3, size=8, seed=0):
    return torch.randn(batch, 4, size, size, generator=torch.Generator().manual_seed(seed))


def images(batch=2, size=64, seed=0, dtype=torch.float32):
    return torch.rand(batch, size, size, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def editable(source, target):
    shutil.copytree(source, target)
    return target


def set_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_both_layouts_are_the_same_model(sdxl, prompts, tiny_sdxl_file):
    single = load_sdxl(tiny_sdxl_file, keep_decoder=True)
    read = single.encode_text(PROMPTS)
    same(read.tokens, prompts.tokens)
    same(read.pooled, prompts.pooled)
    x, sigma = latents(), torch.tensor([0.05, 1.0, 14.0])
    same(single.eps(x, sigma, prompts), sdxl.eps(x, sigma, prompts))
    same(single.encode(images()), sdxl.encode(images()))
    same(single.decode(latents()), sdxl.decode(latents()))
    assert torch.equal(single.sigmas, sdxl.sigmas)
    for name in ("prediction", "unet_parameters", "scaling_factor", "vae_class"):
        assert single.describe()[name] == sdxl.describe()[name]


def test_what_published_files_also_contain_is_left_alone(sdxl, prompts, tiny_sdxl_file, tmp_path):
    shutil.copytree(tiny_sdxl_file.parent / "tokenizer", tmp_path / "tokenizer")
    extra = {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6),
        "model_ema.decay": torch.tensor(0.9999),
        "denoiser.sigmas": torch.ones(1000),
    }
    save_file({**load_file(tiny_sdxl_file), **extra}, tmp_path / "full.safetensors")
    loaded = load_sdxl(tmp_path / "full.safetensors")
    read = loaded.encode_text(PROMPTS)
    same(read.tokens, prompts.tokens)
    same(read.pooled, prompts.pooled)
    same(loaded.eps(latents(), torch.ones(3), prompts), sdxl.eps(latents(), torch.ones(3), prompts))


def test_a_projection_that_a_converter_wrote_as_a_linear_layer(sdxl, prompts, tiny_sdxl_file, tmp_path):
    tensors, name = load_file(tiny_sdxl_file), "conditioner.embedders.1.model.text_projection"
    tensors[f"{name}.weight"] = tensors.pop(name).T.contiguous()
    save_file(tensors, tmp_path / "converted.safetensors")
    got = load_sdxl(tmp_path / "converted.safetensors", tokenizer=tiny_sdxl_file.parent).encode_text(PROMPTS)
    same(got.pooled, prompts.pooled)
    same(got.tokens, prompts.tokens)


def test_text_encoders_under_the_names_that_hub_folders_use(tiny_sdxl_dir, prompts, tmp_path):
    """transformers 5.6 dropped the level `text_model` from the first encoder, the published files have it."""
    folder = editable(tiny_sdxl_dir, tmp_path / "hub")
    file = folder / "text_encoder" / "model.safetensors"
    plain = {name.removeprefix("text_model."): value for name, value in load_file(file).items()}
    save_file({f"text_model.{name}": value for name, value in plain.items()}, file, {"format": "pt"})
    same(load_sdxl(folder).encode_text(PROMPTS).tokens, prompts.tokens)


def test_a_file_in_eight_bits_is_widened(tiny_sdxl_file, prompts, tmp_path):
    shutil.copytree(tiny_sdxl_file.parent / "tokenizer", tmp_path / "tokenizer")
    narrow = {name: value.to(torch.float8_e4m3fn) for name, value in load_file(tiny_sdxl_file).items()}
    save_file(narrow, tmp_path / "fp8.safetensors")
    loaded = load_sdxl(tmp_path / "fp8.safetensors")
    assert loaded.describe()["unet_dtype"] == "float32"
    assert torch.isfinite(loaded.eps(latents(), torch.ones(3), loaded.encode_text(PROMPTS))).all()


def test_the_tiny_model_is_well_scaled(sdxl, prompts):
    sigma = torch.tensor([0.1, 1.0, 10.0])
    noise = sdxl.eps(latents() * (1 + sigma**2).sqrt()[:, None, None, None], sigma, prompts)
    assert 0.5 < float(noise.std()) < 2
    assert 0.3 < float(sdxl.encode(images()).std()) < 3
    assert float((prompts.tokens[0] - prompts.tokens[2]).abs().mean()) > 0.1
    difference = sdxl.eps(latents(1), torch.ones(1), prompts[0:1]) - sdxl.eps(latents(1), torch.ones(1), prompts[2:3])
    assert float(difference.abs().max()) > 1e-3


def test_the_prediction_is_what_the_unet_says_of_the_scaled_input(sdxl, prompts):
    """Against a literal call of the UNet, timesteps and size conditioning written out."""
    x = latents(3, 16)
    steps = torch.tensor([20, 500, 960])
    sigma = sdxl.sigmas[steps].float()
    alpha = 1 / (1 + sdxl.sigmas[steps] ** 2)
    scaled = x * alpha.sqrt()[:, None, None, None].float()
    size = torch.tensor([[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]]).expand(3, 6)
    with torch.no_grad():
        expected = sdxl._unet(
            scaled, steps, prompts.tokens, added_cond_kwargs={"text_embeds": prompts.pooled, "time_ids": size}
        ).sample
    got = sdxl.eps(x, sigma, prompts)
    same(got, expected)
    assert got.dtype == torch.float32
    assert not got.requires_grad


def test_per_sample_sigma_and_prompt_equal_one_by_one(sdxl, prompts):
    x, sigma = latents(), torch.tensor([0.05, 1.0, 14.0])
    together = sdxl.eps(x, sigma, prompts)
    for i in range(3):
        one = slice(i, i + 1)
        same(together[one], sdxl.eps(x[one], sigma[one], prompts[one]))


def test_unequal_batches_are_an_error(sdxl, prompts):
    with pytest.raises(ValueError, match="equal batches, but got 3, 2 and 3"):
        sdxl.eps(latents(), torch.ones(2), prompts)


def test_micro_batches_change_nothing(tiny_sdxl_dir, sdxl, prompts):
    split = load_sdxl(tiny_sdxl_dir, max_batch=2)
    x, sigma = latents(), torch.tensor([0.05, 1.0, 14.0])
    same(split.eps(x, sigma, prompts), sdxl.eps(x, sigma, prompts))


def test_out_of_memory_halves_the_batch_and_tries_again(tiny_sdxl_dir, sdxl, prompts, monkeypatch):
    small = load_sdxl(tiny_sdxl_dir)
    whole = small._eps

    def at_most_one(x, sigma, cond):
        if len(x) > 1:
            raise torch.cuda.OutOfMemoryError
        return whole(x, sigma, cond)

    monkeypatch.setattr(small, "_eps", at_most_one)
    x, sigma = latents(), torch.tensor([0.05, 1.0, 14.0])
    same(small.eps(x, sigma, prompts), sdxl.eps(x, sigma, prompts))
    assert small.max_batch == 1

    def never(x, sigma, cond):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(small, "_eps", never)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        small.eps(x, sigma, prompts)


def test_works_inside_and_outside_inference_mode(tiny_sdxl_dir, sdxl, prompts):
    with torch.inference_mode():
        loaded = load_sdxl(tiny_sdxl_dir)
        cond = loaded.encode_text(PROMPTS)
        noise = loaded.eps(latents(), torch.ones(3), cond)
        loaded.encode(images())
    assert not noise.is_inference()
    assert not cond.tokens.is_inference()
    picture = images().requires_grad_()
    z = loaded.encode(picture)  # weights loaded in inference mode must still let gradients through
    (z * noise[:2]).sum().backward()
    assert float(picture.grad.abs().max()) > 0
    same(noise, sdxl.eps(latents(), torch.ones(3), prompts))
    with torch.no_grad():
        assert not loaded.encode(picture).requires_grad


# -- parameterisations -------------------------------------------------------------------------------------------------


def test_v_prediction_is_converted_as_diffusers_does(tiny_sdxl_dir, sdxl, prompts):
    from diffusers import DDIMScheduler

    v_model = load_sdxl(tiny_sdxl_dir, prediction="v_prediction")
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    scheduler.set_timesteps(10)
    x = latents(1)
    for t in (900, 500, 100):
        sigma = v_model.sigmas[t].float().view(1)
        noise = v_model.eps(x, sigma, prompts[:1])
        output = sdxl.eps(x, sigma, prompts[:1])  # the same network, its output unconverted
        expected = scheduler.step(output, t, x / (1 + sigma**2).sqrt()).prev_sample
        after = v_model.sigmas[t - 100].float()
        ours = (x + (after - sigma) * noise) / (1 + after**2).sqrt()
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_parameterisation_is_read_from_the_scheduler_config(tiny_sdxl_dir, tmp_path):
    folder = editable(tiny_sdxl_dir, tmp_path / "v")
    config = folder / "scheduler" / "scheduler_config.json"
    set_json(config, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    loaded = load_sdxl(folder)
    assert loaded.describe()["prediction"] == "v_prediction"
    assert loaded.describe()["zero_terminal_snr"] is True
    x = latents(2)
    end = loaded.sigmas[-1:].float().expand(2)
    noise = loaded.eps(x * end[0], end, loaded.encode_text(["a", "b"]))
    assert torch.isfinite(noise).all()
    assert torch.isfinite(loaded.sigmas).all()
    assert float(loaded.sigmas[-1]) == pytest.approx(4096, rel=1e-3)
    assert bool((loaded.sigmas.diff() > 0).all())


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5, "prediction_type": "epsilon"},
        {"_class_name": "EDMEulerScheduler"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    ],
)
def test_other_families_of_schedules_are_refused(config, tiny_sdxl_dir, tmp_path):
    """Playground 2.5's folder calls itself an epsilon model, too."""
    folder = editable(tiny_sdxl_dir, tmp_path / "edm")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"of the EDM kind|an EDM or flow-matching model"):
        load_sdxl(folder)


def test_the_rescaled_schedule_is_diffusers_own():
    from diffusers import DDIMScheduler

    from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
    from dreamer_core.teachers.noise_schedule import zero_terminal_sigmas

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    ours = 1 / (1 + zero_terminal_sigmas(scaled_linear_sigmas()) ** 2)
    torch.testing.assert_close(ours, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "metadata", "prediction", "zero"),
    [
        ({}, {}, "epsilon", False),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ({"v_pred": torch.zeros(0)}, {}, "v_prediction", False),
        ({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, {}, "v_prediction", True),
    ],
)
def test_a_single_file_says_its_parameterisation(tensors, metadata, prediction, zero, tmp_path):
    from dreamer_core.teachers.noise_schedule import schedule_config_from_header
    from dreamer_core.teachers.safetensors_header import read_header

    save_file({"x": torch.zeros(1), **tensors}, tmp_path / "a.safetensors", metadata=metadata or None)
    found = schedule_config_from_header(read_header(tmp_path / "a.safetensors"))
    assert found == {"prediction_type": prediction, "rescale_betas_zero_snr": zero}


# -- encoder and decoder -----------------------------------------------------------------------------------------------


def test_encoding_is_the_scaled_posterior_mean_of_the_signed_image(sdxl):
    signed = images().permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        expected = sdxl._vae.encode(signed).latent_dist.mean * 0.13025
    same(sdxl.encode(images()), expected)
    assert sdxl.encode(images(1, 128)).shape == (1, 4, 16, 16)


def test_the_encoders_gradient_against_finite_differences(tiny_sdxl_dir):
    exact = load_sdxl(tiny_sdxl_dir, vae_dtype=torch.float64)
    picture = images(1, 32, dtype=torch.float64)
    weight = latents(1, 4).double()

    def value(x):
        signed = x.permute(0, 3, 1, 2) * 2 - 1
        return (exact._vae.encode(signed).latent_dist.mean * 0.13025 * weight).sum()

    leaf = picture.float().requires_grad_()
    (exact.encode(leaf) * weight.float()).sum().backward()
    assert not any(p.requires_grad for p in exact._vae.parameters())
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        direction = torch.randn(picture.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            h = 1e-5
            numeric = (value(picture + h * direction) - value(picture - h * direction)) / (2 * h)
        analytic = (leaf.grad.double() * direction).sum()
        torch.testing.assert_close(analytic, numeric, rtol=1e-3, atol=1e-3)


def test_a_checkpointed_encoder_has_the_same_gradient(tiny_sdxl_dir, sdxl):
    thrifty = load_sdxl(tiny_sdxl_dir, checkpoint_encoder=True)
    gradients, kept = [], []
    for model in (sdxl, thrifty):
        leaf = images().requires_grad_()
        saved = []

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            z = model.encode(leaf)
            kept.append(sum(saved))
        (z**2).sum().backward()
        gradients.append(leaf.grad)
    same(gradients[1], gradients[0])
    assert kept[1] < kept[0] / 2


def test_decoding_gives_pictures_and_can_be_left_out(tiny_sdxl_dir, sdxl):
    picture = sdxl.decode(latents(2))
    assert picture.shape == (2, 64, 64, 3)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    with pytest.raises(RuntimeError, match="keep_decoder"):
        load_sdxl(tiny_sdxl_dir).decode(latents(1))


def test_a_vae_of_ones_own_as_folder_file_and_checkpoint(tiny_sdxl_dir, sdxl, tmp_path):
    from dreamer_core.teachers.sdxl.tiny_sdxl import save_tiny_sdxl, save_tiny_single_file

    other = save_tiny_sdxl(tmp_path / "other", seed=1)
    single = save_tiny_single_file(tmp_path / "single" / "other.safetensors", seed=1)
    tensors = {
        name.removeprefix("first_stage_model."): value
        for name, value in load_file(single).items()
        if name.startswith("first_stage_model.")
    }
    save_file(tensors, tmp_path / "vae.safetensors")
    expected = load_sdxl(other).encode(images())
    assert float((expected - sdxl.encode(images())).abs().max()) > 0.1
    for vae in (other / "vae", other, single, tmp_path / "vae.safetensors"):
        loaded = load_sdxl(tiny_sdxl_dir, vae=vae)
        same(loaded.encode(images()), expected)
        assert loaded.describe()["vae"] == (vae.name if vae.suffix else "vae")


def test_a_checkpoint_without_vae_takes_one_from_elsewhere(tiny_sdxl_dir, tiny_sdxl_file, sdxl, tmp_path):
    tensors = {n: v for n, v in load_file(tiny_sdxl_file).items() if not n.startswith("first_stage_model.")}
    save_file(tensors, tmp_path / "bare.safetensors")
    tokenizer = tiny_sdxl_file.parent
    loaded = load_sdxl(tmp_path / "bare.safetensors", vae=tiny_sdxl_dir / "vae", tokenizer=tokenizer)
    same(loaded.encode(images()), sdxl.encode(images()))
    folder = editable(tiny_sdxl_dir, tmp_path / "folder")
    shutil.rmtree(folder / "vae")
    same(load_sdxl(folder, vae=tiny_sdxl_dir / "vae").encode(images()), sdxl.encode(images()))


def test_a_tiny_autoencoder_as_vae(tiny_sdxl_dir, tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4,
        decoder_block_out_channels=(16,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        scaling_factor=1.7,
    )
    vae.save_pretrained(tmp_path / "taesd")
    loaded = load_sdxl(tiny_sdxl_dir, vae=tmp_path / "taesd", keep_decoder=True, checkpoint_encoder=True)
    leaf = images().requires_grad_()
    z = loaded.encode(leaf)
    same(z, vae.encode(leaf.detach().permute(0, 3, 1, 2) * 2 - 1).latents * 1.7)
    (z**2).sum().backward()
    assert float(leaf.grad.abs().max()) > 0
    assert loaded.decode(z.detach()).shape == (2, 64, 64, 3)
    assert loaded.describe()["vae_class"] == "AutoencoderTiny"


# -- precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_unet_with_a_float32_vae(dtype, tiny_sdxl_dir, tiny_sdxl_file, sdxl, prompts):
    x, sigma = latents(), torch.tensor([0.05, 1.0, 14.0])
    expected = sdxl.eps(x, sigma, prompts)
    for model in (tiny_sdxl_dir, tiny_sdxl_file):
        half = load_sdxl(model, unet_dtype=dtype)
        got = half.eps(x, sigma, prompts)
        assert got.dtype == torch.float32
        assert float((got - expected).norm() / expected.norm()) < (0.01 if dtype is torch.float16 else 0.05)
        assert half.describe()["unet_dtype"] == str(dtype).removeprefix("torch.")
        assert half.describe()["vae_dtype"] == "float32"
        assert half.encode_text(PROMPTS).tokens.dtype == torch.float32
        same(half.encode(images()), sdxl.encode(images()))


def test_half_precision_files_with_a_variant_in_their_names(tiny_sdxl_dir, sdxl, tmp_path):
    folder = editable(tiny_sdxl_dir, tmp_path / "fp16")
    for file in folder.rglob("*.safetensors"):
        halves = {name: value.half() for name, value in load_file(file).items()}
        save_file(halves, file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")), {"format": "pt"})
        file.unlink()
    loaded = load_sdxl(folder)
    assert {tower.model.dtype for tower in loaded._towers} == {torch.float32}
    assert float((loaded.encode(images()) - sdxl.encode(images())).abs().max()) < 0.02


# -- text --------------------------------------------------------------------------------------------------------------


def test_prompts_have_sdxls_shape_and_do_not_depend_on_their_neighbours(sdxl, prompts):
    assert prompts.tokens.shape == (3, 77, 96)
    assert prompts.pooled.shape == (3, 64)
    for i, prompt in enumerate(PROMPTS):
        one = sdxl.encode_text([prompt])
        same(one.tokens[0], prompts.tokens[i])
        same(one.pooled[0], prompts.pooled[i])
    assert float(prompts.tokens[1].abs().max()) > 0  # the empty prompt is encoded, not zeroed


def test_prompts_are_encoded_as_diffusers_pipeline_does(tiny_sdxl_dir, prompts):
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl_dir, local_files_only=True)
    for i, prompt in enumerate(PROMPTS):
        tokens, _, pooled, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        same(prompts.tokens[i : i + 1], tokens)
        same(prompts.pooled[i : i + 1], pooled)


def test_a_long_prompt_takes_several_chunks(sdxl):
    """Each chunk is what its own words alone would give; the pooled embedding is the first chunk's."""
    long, parts = "q" * 180, ["q" * 75, "q" * 75, "q" * 30]
    whole, alone = sdxl.encode_text([long]), sdxl.encode_text(parts)
    assert whole.tokens.shape == (1, 231, 96)
    # Inside a word "q" is another token than at its end, which only the last one is.
    same(whole.tokens[0, 154:], alone.tokens[2])
    same(whole.tokens[0, :77][:70], alone.tokens[0][:70])
    same(whole.pooled, sdxl.encode_text(["q" * 100]).pooled)
    assert sdxl.encode_text(["q" * 75]).tokens.shape == (1, 77, 96)
    assert sdxl.encode_text(["q" * 76]).tokens.shape == (1, 154, 96)


def test_prompts_of_different_lengths_get_equal_ones(sdxl):
    both = sdxl.encode_text(["a mug", "q" * 80])
    assert both.tokens.shape == (2, 154, 96)
    short = sdxl.encode_text(["a mug"])
    same(both.tokens[:1], short.tokens.repeat(1, 2, 1))  # repeated whole, which attention does not notice
    sigma = torch.ones(1)
    same(sdxl.eps(latents(1), sigma, both[:1]), sdxl.eps(latents(1), sigma, short))


def test_weights_move_tokens_away_from_the_empty_prompt(sdxl):
    plain, empty = sdxl.encode_text(["a mug"]), sdxl.encode_text([""])
    half, none = sdxl.encode_text(["(a mug:0.5)"]), sdxl.encode_text(["(a mug:0)"])
    words = len(sdxl._towers[0].tokenizer("a mug")["input_ids"]) - 2
    inside = slice(1, 1 + words)
    same(half.tokens[:, inside], (plain.tokens + empty.tokens)[:, inside] / 2)
    same(none.tokens[:, inside], empty.tokens[:, inside])
    same(none.tokens[:, 1 + words :], plain.tokens[:, 1 + words :])  # start, end and padding keep theirs
    same(half.pooled, plain.pooled)


def test_text_encoders_can_be_released(tiny_sdxl_dir):
    loaded = load_sdxl(tiny_sdxl_dir)
    cond = loaded.encode_text(["a"])
    loaded.release_text_encoders()
    with pytest.raises(RuntimeError, match="released"):
        loaded.encode_text(["a"])
    assert loaded.eps(latents(1), torch.ones(1), cond).shape == (1, 4, 8, 8)


def test_the_second_tokenizer_is_made_from_the_first(tiny_sdxl_file, sdxl, prompts, tmp_path):
    shutil.copytree(tiny_sdxl_file.parent / "tokenizer", tmp_path / "clip")
    for extra in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "clip" / extra).unlink(missing_ok=True)
    loaded = load_sdxl(tiny_sdxl_file, tokenizer=tmp_path / "clip")  # vocab.json and merges.txt only
    same(loaded.encode_text(PROMPTS).tokens, prompts.tokens)
    same(loaded.encode_text(PROMPTS).pooled, prompts.pooled)


def test_what_run_json_gets_is_plain_and_stable(tiny_sdxl_dir, sdxl):
    described = sdxl.describe()
    assert json.loads(json.dumps(described)) == described
    assert load_sdxl(tiny_sdxl_dir).describe() == described
    assert described["model"] == "sdxl"
    assert sdxl.device == torch.device("cpu")
    assert sdxl.latent_channels == 4


def test_guidance_runs_on_it(sdxl, prompts):
    from dreamer_core.guidance import GuidanceConditioning, Timesteps
    from dreamer_core.guidance.tsm import TSM

    def both(i):
        return Conditioning.cat([prompts[i : i + 1]] * 2)

    z = sdxl.encode(images()).detach()
    cond = GuidanceConditioning(both(0), both(1), both(1))
    result = TSM()(sdxl, z, torch.randn_like(z), Timesteps(t=400, s=300), cond)
    assert torch.isfinite(result.gradient).all()
    assert result.samples == 2 + 4
