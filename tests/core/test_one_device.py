"""A whole step at SDXL's true size, without weights and without a GPU: no device or type goes astray, and
the GPU is waited for once."""

from __future__ import annotations

import importlib
from collections import Counter
from functools import partial

import pytest
import torch
from one_device import GPU, MixedDevicesError, OneDevice, attention, drawn

from benchmarks import full_size
from dreamer_core.cameras import Cameras
from dreamer_core.gaussians import Gaussians
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.rendering.renderer import Renderer
from dreamer_core.setting_values import changed
from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
from dreamer_core.teachers.noise_schedule import NoiseSchedule
from dreamer_core.teachers.sdxl.predictor import DiffusersSDXL, TextTower
from dreamer_core.teachers.sdxl.tiny_sdxl import UNET, VAE, WIDTHS

COUNT = 1000


PLAIN_TO = torch.Tensor.to


def keeping_double(self, *args, **kwargs):
    """`Tensor.to` that brings a double to a device and leaves it one."""
    if self.dtype == torch.float64 and args and isinstance(args[0], torch.Tensor):
        return PLAIN_TO(self, args[0].device)
    return PLAIN_TO(self, *args, **kwargs)


class Words:
    """As much of a CLIP tokenizer as a text tower asks for."""

    bos_token_id, eos_token_id, pad_token_id = 49406, 49407, 49407

    def __call__(self, text, **options):
        return {"input_ids": [320 + len(word) for word in text.split()]}


def a_teacher(unet, vae, encoders):
    """With the types of a GPU run."""
    parts = [part.eval().requires_grad_(False) for part in (unet.half(), vae.float(), *(e.half() for e in encoders))]
    return DiffusersSDXL(
        unet=parts[0],
        vae=parts[1],
        towers=[TextTower(Words(), part) for part in parts[2:]],
        schedule=NoiseSchedule(scaled_linear_sigmas(), "epsilon"),
        source={},
    )


@pytest.fixture(scope="module")
def whole():
    """SDXL at its true size."""
    with torch.device(GPU):
        parts = full_size.unet(), full_size.vae(), full_size.text_encoders()
    return a_teacher(*parts)


@pytest.fixture(scope="module")
def small():
    """The same classes with fewer layers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 49408}
    one, two = (CLIPTextConfig(hidden_size=width, projection_dim=width, **layers) for width in WIDTHS)
    with torch.device(GPU):
        encoders = CLIPTextModel(one), CLIPTextModelWithProjection(two)
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    return a_teacher(unet, vae, encoders)


@pytest.fixture
def mode(monkeypatch):
    """Renders by `drawn`."""
    stand_in = Renderer("stand-in", "for tests", partial(drawn, importlib.import_module))
    monkeypatch.setattr("dreamer_core.rendering.facade.find_renderer", lambda name, device: stand_in)
    made = OneDevice()
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", partial(attention, made))
    return made


def gaussians():
    generator = torch.Generator().manual_seed(0)
    made = Gaussians(
        torch.rand(COUNT, 3, generator=generator),
        torch.rand(COUNT, 4, generator=generator),
        torch.rand(COUNT, 3, generator=generator) - 4,
        torch.rand(COUNT, generator=generator),
        torch.rand(COUNT, 1, 3, generator=generator),
        torch.zeros(COUNT, 0, 3),
    )
    return made.to(GPU)


@pytest.fixture
def steps(mode, monkeypatch):
    """A function: reports of steps of the preset `official`, the state after them, and what was seen."""

    def made(sdxl, count=1, **given):
        zones = {"unet": [sdxl._unet], "vae": [sdxl._vae.encoder], "text": [tower.model for tower in sdxl._towers]}
        for zone, module in ((zone, module) for zone, modules in zones.items() for module in modules):
            monkeypatch.setattr(module, "forward", mode.watched(module.forward, zone))
        words = {name: given.pop(name) for name in ("perp_neg", "overhead") if name in given}
        named = {name.replace("__", "."): value for name, value in given.items()}
        config = changed(PRESETS["official"].config, {"steps": count, **named})
        with mode:
            state = OptimizationState.create(gaussians(), config.learning_rates)
            prompts = encode_prompts(sdxl, PromptConfig("a red mug", negative="blurry", **words))
            mode.seen.waits.clear()
            mode.seen.uploads.clear()
            reports = list(optimize(state, sdxl, prompts, config))
        return reports, state, mode.seen

    return made


HALF, FULL = {torch.float16}, {torch.float32}
CASES = {
    **{method: {"guidance__method": method} for method in ("tsm", "ism", "sds", "csd", "sdi", "asd")},
    "Perp-Neg": {"perp_neg": True},
    "overhead words": {"overhead": "overhead view"},
    "a depth step": {"depth_share": 1.0},
    "mirrored": {"guidance__flip": 1.0},
    "clipped by norm": {"clip__mode": "norm"},
    "rescaled guidance": {"guidance__rescale": 0.7},
    "every regulariser": {
        f"regularizers__{name}": 1.0 for name in ("opacity", "opacity_entropy", "anisotropy", "tv_rgb", "tv_disparity")
    },
    "encoded view by view": {"recompute_encoder": True},
    "growing": {"count": 3, "density__start": 0, "density__every": 1, "density__reset_every": 2},
    "capped": {"count": 2, "density__start": 0, "density__every": 1, "density__max_gaussians": COUNT + 10},
    "mcmc": {"count": 2, "density__strategy": "mcmc", "density__start": 0, "density__every": 1},
}


def check(reports, state, seen, nan=False):
    """The UNet and the text encoders in half, the VAE and all else in single precision, nothing in double."""
    assert seen.heavy == {"unet": HALF, "vae": FULL, "text": HALF}
    assert seen.kinds == {torch.float16, torch.float32}
    assert {p.device.type for p in state.params.values()} == {GPU.type}
    # Every step reads its figures once, and a run's end looks at its Gaussians; so does what a step with NaN keeps.
    # gsplat's statistics and refinements wait, too, and are not ours.
    passed = ("density.py", "mcmc.py", *(("state.py", "gaussians.py") if nan else ()))
    ours = Counter(wait for wait in seen.waits if not wait.startswith(passed))
    assert ours == {"loop.py:read": len(reports), **({} if nan else {"gaussians.py:check_finite": 1})}
    # What is drawn for a step, and words' weights, are brought over; the sizes once.
    assert len([u for u in seen.uploads if not u.startswith("mcmc.py")]) <= 10 * len(reports) + 1


def test_a_step_at_true_size(whole, steps):
    """1024 x 1024, four views, 2.6 billion parameters; every Gaussian grows or goes."""
    reports, state, seen = steps(whole, density__start=0, density__every=1, guidance__stride=999)
    check(reports, state, seen)
    assert reports[0].network_evaluations == 5


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_every_kind(small, steps, mode, name):
    mode.count = 5 if name == "mcmc" else 0
    check(*steps(small, **CASES[name]), nan=bool(mode.count))  # a stand-in's count is also its number of NaN


def test_without_density_control_a_step_waits_once(small, steps):
    assert steps(small, density__enabled=False)[2].waits == [
        "loop.py:read",
        "gaussians.py:check_finite",
    ]  # the end of the run, too


def test_a_tensor_left_behind_is_found(small, steps, monkeypatch):
    """What CUDA would refuse: cameras that stay on the processor."""
    monkeypatch.setattr(Cameras, "to", lambda self, device: self)
    with pytest.raises(MixedDevicesError, match=r"on cpu"):
        steps(small, depth_share=1.0)


def test_a_type_that_goes_astray_is_found(small, steps, monkeypatch):
    """A noise in double precision, which a GPU for games computes at a thirty-second of its speed."""
    monkeypatch.setattr("dreamer_core.optimize.loop.offset_noise", lambda shape, *_: torch.zeros(shape).double())
    monkeypatch.setattr(torch.Tensor, "to", keeping_double)
    assert torch.float64 in steps(small)[2].kinds


def test_a_wait_is_found(small, steps, monkeypatch):
    """A number read in the middle of a step."""
    plain = DiffusersSDXL.eps

    def reading(self, x, sigma, cond):
        float(x.mean())
        return plain(self, x, sigma, cond)

    monkeypatch.setattr(DiffusersSDXL, "eps", reading)
    assert len(steps(small, density__enabled=False)[2].waits) > 1
