"""The published configuration, value by value (Dreamer XL's paper and released code)."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState
from dreamer_core.optimize.memory import CHECKPOINTED_BYTES_PER_PIXEL, UNET_BYTES_PER_LATENT, plan_memory
from dreamer_core.optimize.presets import INITIAL_COUNT
from dreamer_core.prompts import PromptConfig

OFFICIAL = {
    "resolution": 1024,
    "views": 4,
    "steps": 2500,
    "schedule_steps": 2500,
    "depth_share": 0.2,
    "scale_noise": 0.112,
    "cleanup.enabled": False,
    "memory": "auto",
    "guidance.csd_empty": 0.5,
    "guidance.sdi_steps": 10,
    "guidance.sdi_cfg": -7.5,
    "guidance.sdi_noise": 0.3,
    "guidance.asd_shift": 0.1,
    "clip.depth_mode": "per_pixel",
    "cameras.fov_pool": 0,
    "density.strategy": "default",
    "guidance.method": "tsm",
    "guidance.gamma": 0.954,
    "guidance.cfg": 7.5,
    "guidance.weight": 0.1,
    "guidance.t_range": (21, 500),
    "guidance.warmup_steps": 750,
    "guidance.t_widening": 480,
    "guidance.delta": 80,
    "guidance.delta_widening": 20,
    "guidance.stride": 200,
    "guidance.offset_noise": 0.1,
    "guidance.flip": 0.5,
    "clip.mode": "pixel",
    "clip.threshold": 0.05,
    "clip.ramp_from": None,
    "clip.depth_factor": 0.01,
    "cameras.radius": (5.2, 5.5),
    "cameras.radius_factor": 0.95,
    "cameras.radius_floor": (3.5, 5.0),
    "cameras.fov": (0.32, 0.60),
    "cameras.fov_factor": 0.75,
    "cameras.fov_floor": 0.16,
    "cameras.progress_every": 500,
    "cameras.elevation": (-15.0, 45.0),
    "cameras.azimuth": (-180.0, 180.0),
    "cameras.center_jitter": 0.025,
    "cameras.target_jitter": 0.05,
    "cameras.up_jitter": 0.01,
    "background.white": 0.34,
    "background.black": 0.33,
    "learning_rates.means": (5.6e-4, 5.6e-6),
    "learning_rates.sh0": (5e-3, 3e-3),
    "learning_rates.log_scales": (5e-3, 1e-3),
    "learning_rates.quats": (1e-3, 2e-4),
    "learning_rates.logit_opacities": (0.05, 0.05),
    "density.start": 100,
    "density.stop": 1500,
    "density.every": 100,
    "density.grow_gradient": 7.5e-4,
    "density.reference_resolution": 1024,
    "density.split_scale": 0.0105,
    "density.prune_opacity": 0.005,
    "density.prune_scale": 0.35,
    "density.reset_every": 300,
    "regularizers.tv_rgb": 1.0,
    "regularizers.tv_disparity": 1.0,
    "regularizers.scale": 1.0,
}


def value(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("path", OFFICIAL)
def test_official_is_the_published_value(path):
    assert value(PRESETS["official"].config, path) == OFFICIAL[path]


def test_the_initial_cloud_has_the_published_size():
    assert INITIAL_COUNT["official"] == 4096 * 20
    assert set(INITIAL_COUNT) == set(PRESETS)


def test_what_is_published_of_words_start_and_optimiser():
    prompt = PromptConfig("a mug")
    assert (prompt.front, prompt.side, prompt.back, prompt.inversion) == ("front view", "side view", "back view", "")
    assert prompt.perp_neg is False
    weights = prompt.perp_neg_weights
    assert (weights.weight, weights.front_decay, weights.side_decay) == (-2.0, 2.0, 10.0)
    scene = initial_shape("sphere", 10, torch.Generator().manual_seed(0))
    torch.testing.assert_close(scene.opacities, torch.full((10,), 0.1))
    torch.testing.assert_close(scene.rgb, torch.full((10, 3), 0.5))
    assert scene.shN.shape == (10, 0, 3)  # degree 0
    state = OptimizationState.create(scene, PRESETS["official"].config.learning_rates)
    assert {type(o) for o in state.optimizers.values()} == {torch.optim.Adam}
    assert {group["eps"] for o in state.optimizers.values() for group in o.param_groups} == {1e-15}


def leaves(config, prefix=""):
    for field in fields(config):
        inner = getattr(config, field.name)
        yield from leaves(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [(prefix + field.name, inner)]


def test_paper_differs_from_official_in_gamma_alone():
    official, paper = dict(leaves(PRESETS["official"].config)), dict(leaves(PRESETS["paper"].config))
    assert {name for name in official if official[name] != paper[name]} == {"guidance.gamma"}
    assert paper["guidance.gamma"] == 0.3


def test_fast_costs_less():
    fast, official = PRESETS["fast"].config, PRESETS["official"].config
    cost = lambda c: c.steps * c.views * c.resolution**2
    assert cost(fast) < cost(official) / 8
    assert fast.density.stop <= fast.steps


def test_low_vram_fits_a_card_of_12_gb():
    """Half-precision weights (an SDXL's 2.6 + 0.8 billion parameters, the encoder's 34 million in float32) included."""
    low, paper = PRESETS["low_vram"].config, PRESETS["paper"].config
    assert (low.resolution, low.views, low.steps, low.guidance) == (768, 2, paper.steps, paper.guidance)
    plan = plan_memory(low.memory, 0, resolution=low.resolution, views=low.views)
    assert plan.recompute_encoder
    assert plan.checkpoint_encoder
    assert plan.max_batch is not None
    weights = 2 * 2.6e9 + 4 * 34e6  # the text encoders are gone by then
    encoder = CHECKPOINTED_BYTES_PER_PIXEL * low.resolution**2
    unet = plan.max_batch * UNET_BYTES_PER_LATENT * (low.resolution / 8) ** 2
    assert weights + max(encoder, unet) < 0.8 * 12e9


def test_the_published_presets_keep_every_gaussian_and_the_others_clean_up():
    assert {name: preset.cleanup.enabled for name, preset in PRESETS.items()} == {
        "official": False,
        "paper": False,
        "fast": True,
        "low_vram": True,
        "starter": True,
    }
