"""The released configuration, value by value (Dreamer XL's code; the paper's text where it says otherwise)."""

import math
import re

import pytest
import torch

from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, OptimizeConfig
from dreamer_core.optimize.memory import CHECKPOINTED_BYTES_PER_PIXEL, UNET_BYTES_PER_LATENT, plan_memory
from dreamer_core.prompts import PromptConfig
from dreamer_core.setting_values import values
from dreamer_core.settings import declared_settings

RELEASED = {
    "resolution": 1024,
    "views": 4,
    "seed": 0,
    "steps": 2500,
    "schedule_steps": 2500,
    "depth_share": 0.2,
    "scale_noise": math.sqrt(0.2) / 4,
    "guidance.method": "tsm",
    "guidance.gamma": math.sqrt(1 - 0.3**2),
    "guidance.cfg": 7.5,
    "guidance.weight": 0.1,
    "guidance.t_min": 21,
    "guidance.t_max": 500,
    "guidance.warmup_steps": 750,
    "guidance.t_widening": 480,
    "guidance.t_lift": 0,
    "guidance.cfg_fade": 0.0,
    "guidance.delta": 80,
    "guidance.delta_widening": 20,
    "guidance.stride": 200,
    "guidance.offset_noise": None,  # the method's own, see below
    "guidance.flip": 0.5,
    "clip.mode": "pixel",
    "clip.threshold": 0.05,
    "clip.ramp_from": 0.0,
    "clip.ramp_steps": 0,
    "clip.depth_mode": "global",
    "clip.depth_factor": 0.01,
    "cameras.radius": (5.2, 5.5),
    "cameras.radius_factor": 0.95,
    "cameras.final_radius": (3.5, 5.0),
    "cameras.fov": (math.degrees(0.32), math.degrees(0.60)),
    "cameras.fov_factor": 0.75,
    "cameras.final_fov_min": math.degrees(0.16),
    "cameras.fov_pool": 0,
    "cameras.fov_pool_views": 10,
    "cameras.progress_every": 500,
    "cameras.elevation": (-15.0, 45.0),
    "cameras.azimuth": (-180.0, 180.0),
    "cameras.azimuth_factor": 1.0,  # theirs, 1.5, has nothing to grow in a full turn
    "cameras.final_azimuth": (-180.0, 180.0),
    "cameras.concentration": 1.0,
    "cameras.center_jitter": 0.025,
    "cameras.target_jitter": 0.05,
    "cameras.up_jitter": 0.01,
    "background.white": 0.34,
    "background.black": 0.33,
    "learning_rates.means": (5.6e-4, 5.6e-6),
    "learning_rates.sh0": (5e-3, 3e-3),
    "learning_rates.shN": (2.5e-4, 2.5e-4),
    "learning_rates.log_scales": (5e-3, 1e-3),
    "learning_rates.quats": (1e-3, 2e-4),
    "learning_rates.logit_opacities": (0.05, 0.05),
    "learning_rates.betas": (0.9, 0.999),
    "density.enabled": True,
    "density.strategy": "default",
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
    "regularizers.opacity": 0.0,
    "regularizers.opacity_entropy": 0.0,
    "regularizers.anisotropy": 0.0,
    "cleanup.enabled": False,
}

OURS = {
    "multiview_share": (0.0, 0.0),
    "multiview_half_width": 1.1,
    "memory": "auto",
    "recompute_encoder": False,
    "density.max_gaussians": 1_000_000,  # the released code grows without a limit
    "density.noise": 5e5,
    "regularizers.max_anisotropy": 10.0,
    "guidance.rescale": 0.0,
    "guidance.teacher": "auto",
    "cleanup.min_opacity": 0.005,
    "cleanup.floaters": True,
    "cleanup.floater_share": 0.1,
    "cleanup.reach": 3.0,
    "cleanup.neighbours": 16,
}
"""What the released code has not, or what counts only beside something that is off in this preset."""

OTHER_METHODS = {
    ("ism", "guidance.cfg"): 7.5,
    ("sds", "guidance.cfg"): 100.0,
    ("csd", "guidance.csd_empty"): 0.5,
    ("sdi", "guidance.cfg"): 7.5,
    ("sdi", "guidance.t_first"): 999,
    ("sdi", "guidance.t_last"): 200,
    ("sdi", "guidance.sdi_steps"): 10,
    ("sdi", "guidance.sdi_cfg"): -7.5,
    ("sdi", "guidance.sdi_noise"): 0.3,
    ("asd", "guidance.cfg"): 7.5,
    ("asd", "guidance.asd_shift"): 0.1,
    ("sds_bridge", "guidance.cfg"): 100.0,
}
"""Of their own papers, and code."""

WORDS = {
    "prompt": "a red mug",
    "negative": "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, "
    "oversaturation.",
    "front": "front view",
    "side": "side view",
    "back": "back view",
    "overhead": "",
    "inversion": "",
    "overhead_from": 45.0,
    "overhead_to": 75.0,
    "perp_neg": False,
    "perp_neg_weight": -2.0,
    "perp_neg_front_decay": 2.0,
    "perp_neg_side_decay": 10.0,
    "artefacts": "",
    "left": "",
    "right": "",
}


@pytest.mark.parametrize("name", [*RELEASED, *OURS])
def test_official_is_the_released_value(name):
    found = dict(values(PRESETS["official"].config))[name]
    expected = {**RELEASED, **OURS}[name]
    assert found == (pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected)


def published(tip):
    """The value after "Published:" where a tip has one for the configuration that `official` follows."""
    found = re.search(r"Published: (-?[\d,]*\.?\d+)(?! for)", tip)
    return float(found[1].replace(",", "")) if found else None


def test_tips_say_the_published_values():
    """Rounded to three digits; of a pair, both."""
    seen = set()
    for setting in declared_settings(OptimizeConfig):
        if setting.variant or RELEASED.get(setting.name) is None:
            continue
        value = RELEASED[setting.name]
        both = [(setting.knob.tip, value)]
        if setting.is_pair:
            both = [(setting.knob.tip, value[0]), (setting.knob.second_tip, value[1])]
        for tip, said in both:
            if published(tip) is not None:
                assert published(tip) == pytest.approx(said, rel=5e-3), setting.name
                seen.add(setting.name)
    assert len(seen) > 40


def test_no_setting_of_official_is_forgotten():
    assert dict(values(PRESETS["official"].config)).keys() == {**RELEASED, **OURS}.keys()
    assert not RELEASED.keys() & OURS.keys()


def test_other_methods_have_their_own_papers_values():
    declared = declared_settings(OptimizeConfig)
    assert {(s.variant, s.name): s.default for s in declared if s.variant not in ("", "tsm")} == OTHER_METHODS


def test_the_noise_of_official_is_offset():
    assert PRESETS["official"].config.guidance.noise_offset == 0.1


def test_official_words_are_the_released_ones():
    assert dict(values(PromptConfig(negative=PRESETS["official"].negative))) == WORDS


def test_what_a_preset_needs_beside_its_settings():
    """4,096 points of Point-E with 20 offsets each; the starter has never seen the words of the negative prompt."""
    published = WORDS["negative"]
    assert {name: (preset.count, preset.negative) for name, preset in PRESETS.items()} == {
        "official": (4096 * 20, published),
        "paper": (4096 * 20, published),
        "fast": (40_000, published),
        "multiview": (40_000, published),
        "low_vram": (40_000, published),
        "starter": (4_000, ""),
    }
    assert {name for name, preset in PRESETS.items() if (preset.size, preset.opacity) != (0.6, 0.1)} == {"starter"}
    assert all(len(preset.about) > 20 for preset in PRESETS.values())


def test_what_is_published_of_start_and_optimiser():
    scene = initial_shape("sphere", 10, torch.Generator().manual_seed(0))
    torch.testing.assert_close(scene.opacities, torch.full((10,), 0.1))
    torch.testing.assert_close(scene.rgb, torch.full((10, 3), 0.5))
    assert scene.shN.shape == (10, 0, 3)  # degree 0
    state = OptimizationState.create(scene, PRESETS["official"].config.learning_rates)
    assert {type(o) for o in state.optimizers.values()} == {torch.optim.Adam}
    assert {group["eps"] for o in state.optimizers.values() for group in o.param_groups} == {1e-15}


def test_paper_differs_from_official_in_what_its_text_says():
    official, paper = dict(values(PRESETS["official"].config)), dict(values(PRESETS["paper"].config))
    changed = {name: paper[name] for name in official if official[name] != paper[name]}
    assert changed == {"guidance.gamma": 0.3, "clip.depth_mode": "per_pixel"}


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
    assert {name: preset.config.cleanup.enabled for name, preset in PRESETS.items()} == {
        "official": False,
        "paper": False,
        "fast": True,
        "multiview": True,
        "low_vram": True,
        "starter": True,
    }
