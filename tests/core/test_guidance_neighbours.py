"""CSD, SDI, ASD, SDS-Bridge and Perp-Neg against literal transcriptions in variance-preserving form."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from test_guidance import ALPHAS, SIGMAS, SmoothTeacher, conditioning, latents

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import InputError
from dreamer_core.guidance import (
    METHODS,
    GuidanceConfig,
    Timesteps,
    WeightedNegative,
    guided_noise,
    sample_timesteps,
)
from dreamer_core.guidance.asd import ASD
from dreamer_core.guidance.csd import CSD
from dreamer_core.guidance.sdi import SDI
from dreamer_core.guidance.sds import SDS
from dreamer_core.guidance.sds_bridge import SDSBridge
from dreamer_core.guidance.tsm import TSM
from dreamer_core.optimize import PRESETS
from dreamer_core.prompts import PromptConfig, encode_prompts, perp_neg_weights
from dreamer_core.setting_values import changed
from dreamer_core.settings import own_settings
from dreamer_core.teachers.teacher import Conditioning


def eps(x_vp, t, cond):
    """The teacher asked in VP form."""
    sigma = torch.full((len(x_vp),), float(SIGMAS[t]), dtype=torch.float64)
    return SmoothTeacher().eps(x_vp / ALPHAS[t].sqrt(), sigma, cond)


def noised(z, noise, t):
    return ALPHAS[t].sqrt() * z + (1 - ALPHAS[t]).sqrt() * noise


def with_artefact(cond):
    return replace(cond, artefact=Conditioning(cond.positive.tokens, cond.positive.pooled - 0.9))


@pytest.mark.parametrize(("progress", "b"), [(0.0, (1.0, 0.0)), (0.5, (0.75, 0.25)), (1.0, (0.5, 0.5))])
def test_csd(progress, b):
    (z, noise), c, t = latents(), conditioning(), 430
    x = noised(z, noise, t)
    expected = (1 - ALPHAS[t]) * (eps(x, t, c.positive) - b[0] * eps(x, t, c.negative) - b[1] * eps(x, t, c.inversion))
    got = CSD()(SmoothTeacher(), z, noise, Timesteps(t, 1, progress=progress), c)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)
    assert (got.calls, got.samples) == (1, 3)


def test_asd():
    (z, noise), c, t = latents(), conditioning(), 420
    later = 420 + round(0.1 * (420 - 20))
    negative, positive = eps(noised(z, noise, t), t, c.negative), eps(noised(z, noise, t), t, c.positive)
    e_cfg = negative + 7.5 * (positive - negative)
    expected = (1 - ALPHAS[t]) * (e_cfg - eps(noised(z, noise, later), later, c.positive))
    got = ASD(cfg=7.5)(SmoothTeacher(), z, noise, Timesteps(t, 1, t_min=20), c)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)
    assert got.samples == 3
    teacher = SmoothTeacher()
    ASD()(teacher, z, noise, Timesteps(990, 1, t_min=20), c)  # t+ stays on the schedule
    assert max(teacher.calls[0][1]) == float(SIGMAS[999])


def test_sds_bridge():
    (z, noise), c, t = latents(), with_artefact(conditioning()), 300
    x = noised(z, noise, t)
    sigma = ((1 - ALPHAS[t]) / ALPHAS[t]).sqrt()
    expected = 25 * sigma * (eps(x, t, c.positive) - eps(x, t, c.artefact))
    got = SDSBridge(cfg=25.0)(SmoothTeacher(), z, noise, Timesteps(t, 1), c)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="artefact"):
        SDSBridge()(SmoothTeacher(), z, noise, Timesteps(t, 1), conditioning())


@pytest.mark.parametrize(("t", "inversions"), [(95, 1), (430, 5), (999, 10)])
def test_sdi(t, inversions):
    (z, noise), c = latents(), conditioning()

    def guided(x, at, w):
        negative, positive = eps(x, at, c.negative), eps(x, at, c.positive)
        return negative + w * (positive - negative)

    x, now = z, None
    times = [*range(0, t, 100), t]
    for start, end in itertools.pairwise(times):
        a = ALPHAS[start] if now is not None else torch.tensor(1.0, dtype=torch.float64)  # begins at clean latents
        e = guided(ALPHAS[start].sqrt() * z if now is None else x, start, -7.5)
        x = ALPHAS[end].sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - ALPHAS[end]).sqrt() * e
        now = end
    k = (x - ALPHAS[t].sqrt() * z) / (1 - ALPHAS[t]).sqrt() + 0.3 * (1 - ALPHAS[t]).sqrt() * noise
    expected = (1 - ALPHAS[t]).sqrt() * (guided(noised(z, k, t), t, 7.5) - k)
    got = SDI(cfg=7.5)(SmoothTeacher(), z, noise, Timesteps(t, 1), c)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-8, atol=1e-8)
    assert got.calls == inversions + 1
    assert got.samples == 2 * inversions + 2


def test_timesteps_of_sdi_fall_over_the_schedule():
    def draw(progress, **given):
        guidance = replace(PRESETS["official"].config.guidance, method=SDI(**given))
        times = sample_timesteps(guidance, 0, torch.Generator(), progress)
        assert times.progress == progress
        return times.t

    assert [draw(p) for p in (0.0, 0.5, 1.0)] == [999, 600, 200]
    assert [draw(p, t_first=950, t_last=50) for p in (0.0, 0.5, 1.0)] == [950, 500, 50]


def test_a_lift_of_t_min_goes_from_coarse_to_fine():
    lifted = GuidanceConfig(t_min=50, t_lift=600, t_max=300, t_widening=650, warmup_steps=100)

    def drawn(config, step):
        seeds = (torch.Generator().manual_seed(i) for i in range(200))
        times = [sample_timesteps(config, step, generator).t for generator in seeds]
        return min(times), max(times)

    for step, (low, high) in {0: (650, 950), 50: (350, 625), 100: (50, 300), 5000: (50, 300)}.items():
        least, most = drawn(lifted, step)
        assert low <= least < low + 15
        assert high - 15 < most <= high
    assert drawn(replace(lifted, t_min=300, t_lift=998), 0) == (950, 950)  # never above the highest
    generator, plain = torch.Generator(), replace(lifted, t_lift=0)
    assert sample_timesteps(plain, 0, generator.manual_seed(3)).t == int(
        torch.randint(50, 951, (1,), generator=generator.manual_seed(3))
    )


@pytest.mark.parametrize(
    ("method", "scales"),
    [(TSM(cfg=7.0), (7.0, 4.6, 2.2)), (SDS(cfg=1.0), (1.0, 1.0, 1.0)), (SDI(cfg=0.0), (0.0, 0.4, 0.8))],
)
def test_a_fading_scale_approaches_one_over_the_schedule(method, scales):
    fading, constant = GuidanceConfig(method=method, cfg_fade=0.8), GuidanceConfig(method=method)
    for progress, scale in zip((0.0, 0.5, 1.0), scales):
        assert fading.method_at(progress).cfg == pytest.approx(scale)
        assert replace(fading.method_at(progress), cfg=method.cfg) == method  # and nothing else changes
        assert constant.method_at(progress) is method


def test_a_method_without_a_scale_has_none_that_fades():
    assert "cfg_fade" in CSD.ignores
    assert GuidanceConfig(method=CSD(), cfg_fade=0.5).method_at(1.0) == CSD()


NAMES = ("tsm", "ism", "sds", "csd", "sdi", "asd", "sds_bridge")


@pytest.mark.parametrize("name", NAMES)
def test_every_method_can_be_configured(name):
    assert tuple(method.name for method in METHODS) == NAMES
    (z, noise), c = latents(), with_artefact(conditioning())
    config = changed(GuidanceConfig(), {"method": name})
    result = config.method(SmoothTeacher(), z, noise, Timesteps(400, 320, progress=0.3), c)
    assert result.gradient.shape == z.shape
    assert result.gradient.norm() > 0


def test_a_method_brings_its_published_values():
    methods = {name: changed(GuidanceConfig(), {"method": name}).method for name in NAMES}
    assert {name: getattr(m, "cfg", None) for name, m in methods.items()} == {
        "tsm": 7.5, "ism": 7.5, "sds": 100.0, "csd": None, "sdi": 7.5, "asd": 7.5, "sds_bridge": 100.0,
    }  # fmt: skip
    offsets = {name: GuidanceConfig(method=m).noise_offset for name, m in methods.items()}
    assert offsets == dict.fromkeys(NAMES, 0.0) | {"tsm": 0.1, "ism": 0.1}
    assert GuidanceConfig(method=SDS(), offset_noise=0.05).noise_offset == 0.05
    assert GuidanceConfig(method=TSM(), offset_noise=0.0).noise_offset == 0.0
    assert [name for name, m in methods.items() if m.needs_artefacts] == ["sds_bridge"]


PARAMETERS = [
    ("csd", {"csd_empty": 0.2}),
    ("sdi", {"sdi_steps": 3}),
    ("sdi", {"sdi_cfg": -3.0}),
    ("sdi", {"sdi_noise": 0.0}),
    ("asd", {"asd_shift": 0.3}),
    ("tsm", {"gamma": 0.3}),
    *((name, {"cfg": 3.0}) for name in ("tsm", "ism", "sds", "sdi", "asd", "sds_bridge")),
]


@pytest.mark.parametrize(("name", "change"), PARAMETERS)
def test_parameters_take_effect(name, change):
    (z, noise), c = latents(), with_artefact(conditioning())
    published = changed(GuidanceConfig(), {"method": name})
    found = [
        config.method(SmoothTeacher(), z, noise, Timesteps(400, 320, progress=0.5), c)
        for config in (published, changed(published, change))
    ]
    assert not torch.allclose(found[0].gradient, found[1].gradient, rtol=1e-4)
    if "sdi_steps" in change:
        assert [r.calls for r in found] == [5, 3]  # strides of 100 and of 334


def test_every_parameter_of_a_method_is_tried_above():
    tried = {(name, field) for name, change in PARAMETERS for field in change}
    where = {("sdi", "t_first"), ("sdi", "t_last")}  # these say where to look, see above
    assert {(m.name, s.field) for m in METHODS for s in own_settings(m)} == tried | where


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (CSD, {"csd_empty": 1.5}),
        (SDI, {"sdi_steps": 0}),
        (SDI, {"sdi_cfg": math.inf}),
        (SDI, {"sdi_noise": -1.0}),
        (SDI, {"t_last": 0}),
        (ASD, {"asd_shift": -0.1}),
        (TSM, {"gamma": math.nan}),
        (SDS, {"cfg": -1.0}),
    ],
)
def test_bad_parameters_name_their_field(method, change):
    with pytest.raises(InputError) as error:
        method(**change)
    assert [error.value.field] == [f"guidance.{name}" for name in change]


# Perp-Neg.


def test_perpendicular_negatives_are_the_published_sum():
    teacher, (z, _), c = SmoothTeacher(), latents(), conditioning()
    avoided = Conditioning(c.positive.tokens, torch.full((2, 1), -1.3, dtype=torch.float64))
    weights = torch.tensor([-2.0, -0.5])
    cond = replace(c, perpendicular=(WeightedNegative(avoided, weights),))
    sigma = torch.full((2,), 1.7, dtype=torch.float64)
    e = {k: teacher.eps(z, sigma, v) for k, v in (("p", c.positive), ("n", c.negative), ("i", avoided))}
    expected = []
    for b in range(2):
        d, i = (e["p"] - e["n"])[b].flatten(), (e["i"] - e["n"])[b].flatten()
        perp = i - (i @ d) / (d @ d) * d
        assert abs(float(perp @ d)) < 1e-9
        expected.append(e["n"][b] + 7.5 * (d + float(weights[b]) * perp).view_as(e["n"][b]))
    got, rest, samples = guided_noise(teacher, z, 1.7, cond, 7.5)
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-9, atol=1e-9)
    assert rest == []
    assert samples == 3


def test_tsm_with_perp_neg_still_makes_one_last_call():
    teacher, (z, noise), c = SmoothTeacher(), latents(), conditioning()
    cond = replace(c, perpendicular=(WeightedNegative(c.inversion, torch.tensor([-1.0, 0.0])),))
    result = TSM(gamma=0.3)(teacher, z, noise, Timesteps(500, 420), cond)
    assert [n for n, _ in teacher.calls] == [2, 2, 2, 2, 8]
    assert result.samples == 3 + 1 + 4
    plain = TSM(gamma=0.3)(SmoothTeacher(), z, noise, Timesteps(500, 420), c)
    assert not torch.allclose(result.gradient[0], plain.gradient[0])
    torch.testing.assert_close(result.gradient[1], plain.gradient[1])  # weight 0


def test_perp_neg_weights_by_azimuth():
    def at(azimuth):
        return perp_neg_weights(torch.tensor([float(azimuth)]), PromptConfig())[0].tolist()

    assert at(0) == pytest.approx([0.0, -2 * math.exp(-10 * 0.0)])
    assert at(9) == pytest.approx([0.0, -2 * math.exp(-10 * 0.1)])  # still near the front: not avoided
    assert at(45) == pytest.approx([-2 * math.exp(-2 * 0.5), -2 * math.exp(-10 * 0.5)])
    assert at(-45) == at(45)
    assert at(81) == pytest.approx([-2 * math.exp(-2 * 0.1), 0.0])
    assert at(135) == pytest.approx([-2, -1 * math.exp(-10 * 0.5)])
    assert at(99) == pytest.approx([-2, 0.0])
    assert at(180) == pytest.approx([-2, -1.0])


class OneHot:
    def encode_text(self, prompts):
        return Conditioning(torch.eye(len(prompts))[:, None], torch.eye(len(prompts)))


def test_perp_neg_weights_can_be_set():
    config = PromptConfig(
        "a mug", perp_neg=True, perp_neg_weight=-1.0, perp_neg_front_decay=0.0, perp_neg_side_decay=0.0
    )
    cond = encode_prompts(OneHot(), config).at(orbit_cameras([45.0], 0.0, 3.0, 0.6, 64))
    assert [float(n.weight) for n in cond.perpendicular] == [-1.0, -1.0]
    with pytest.raises(InputError, match=r"prompt.perp_neg_weight: expected a number from -20 to 0, got 2.0"):
        PromptConfig("a mug", perp_neg_weight=2.0)


def test_prompts_carry_negatives_and_artefacts():
    config = PromptConfig("a mug", overhead="overhead view", perp_neg=True, artefacts="blurry")
    cond = encode_prompts(OneHot(), config).at(orbit_cameras([45.0, 135.0], 0.0, 3.0, 0.6, 64))
    assert [n.cond.pooled[0].argmax().item() for n in cond.perpendicular] == [0, 1]  # front, side
    torch.testing.assert_close(cond.perpendicular[0].weight, torch.tensor([-2 * math.exp(-1), -2.0]))
    assert cond.artefact is not None
    assert cond.artefact.pooled[:, -1].tolist() == [1.0, 1.0]
    front = encode_prompts(OneHot(), config).at(orbit_cameras([0.0], 0.0, 3.0, 0.6, 64))
    assert [n.cond.pooled[0].argmax().item() for n in front.perpendicular] == [1]  # weight 0 is not evaluated
    plain = encode_prompts(OneHot(), PromptConfig("a mug")).at(orbit_cameras([45.0], 0.0, 3.0, 0.6, 64))
    assert plain.perpendicular == ()
    assert plain.artefact is None
