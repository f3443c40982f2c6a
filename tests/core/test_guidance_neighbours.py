"""CSD, SDI, ASD, SDS-Bridge and Perp-Neg against literal transcriptions in variance-preserving form."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from test_guidance import ALPHAS, SIGMAS, SmoothTeacher, conditioning, latents

from dreamer_core.cameras import orbit_cameras
from dreamer_core.diffusion.predictor import Conditioning
from dreamer_core.errors import InputError
from dreamer_core.guidance import Timesteps, WeightedNegative, asd, csd, guided_noise, sdi, sds_bridge, tsm
from dreamer_core.optimize import PRESETS
from dreamer_core.optimize.loop import guidance_gradient, sample_timesteps
from dreamer_core.prompts import PerpNeg, PromptConfig, encode_prompts, perp_neg_weights


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
    got = csd(SmoothTeacher(), z, noise, Timesteps(t, 0), c, progress=progress)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)
    assert (got.calls, got.samples) == (1, 3)


def test_asd():
    (z, noise), c, t = latents(), conditioning(), 420
    later = 420 + round(0.1 * (420 - 20))
    negative, positive = eps(noised(z, noise, t), t, c.negative), eps(noised(z, noise, t), t, c.positive)
    e_cfg = negative + 7.5 * (positive - negative)
    expected = (1 - ALPHAS[t]) * (e_cfg - eps(noised(z, noise, later), later, c.positive))
    got = asd(SmoothTeacher(), z, noise, Timesteps(t, 0), c, cfg=7.5, t_min=20)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)
    assert got.samples == 3
    asd(SmoothTeacher(), z, noise, Timesteps(990, 0), c, t_min=20)  # t+ stays on the schedule


def test_sds_bridge():
    (z, noise), c, t = latents(), with_artefact(conditioning()), 300
    x = noised(z, noise, t)
    sigma = ((1 - ALPHAS[t]) / ALPHAS[t]).sqrt()
    expected = 25 * sigma * (eps(x, t, c.positive) - eps(x, t, c.artefact))
    got = sds_bridge(SmoothTeacher(), z, noise, Timesteps(t, 0), c, scale=25.0)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="artefact"):
        sds_bridge(SmoothTeacher(), z, noise, Timesteps(t, 0), conditioning())


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
    got = sdi(SmoothTeacher(), z, noise, Timesteps(t, 0), c, cfg=7.5)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-8, atol=1e-8)
    assert got.calls == inversions + 1
    assert got.samples == 2 * inversions + 2


def test_annealed_timesteps_fall_over_the_schedule():
    guidance = replace(PRESETS["official"].config.guidance, t_annealing=(999, 200))
    draw = lambda progress: sample_timesteps(guidance, 0, torch.Generator(), progress).t
    assert [draw(p) for p in (0.0, 0.5, 1.0)] == [999, 600, 200]


@pytest.mark.parametrize("method", ["tsm", "ism", "sds", "csd", "sdi", "asd", "sds_bridge"])
def test_every_method_can_be_configured(method):
    (z, noise), c = latents(), with_artefact(conditioning())
    config = replace(PRESETS["official"].config.guidance, method=method)
    result = guidance_gradient(SmoothTeacher(), z, noise, Timesteps(400, 320), c, config, 0.3)
    assert result.gradient.shape == z.shape
    assert result.gradient.norm() > 0


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("csd", {"csd_empty": 0.2}),
        ("sdi", {"sdi_steps": 3}),
        ("sdi", {"sdi_cfg": -3.0}),
        ("sdi", {"sdi_noise": 0.0}),
        ("asd", {"asd_shift": 0.3}),
    ],
)
def test_parameters_of_the_neighbours_take_effect(method, change):
    (z, noise), c = latents(), conditioning()
    published = replace(PRESETS["official"].config.guidance, method=method)
    found = [
        guidance_gradient(SmoothTeacher(), z, noise, Timesteps(400, 320), c, config, 0.5)
        for config in (published, replace(published, **change))
    ]
    assert not torch.allclose(found[0].gradient, found[1].gradient, rtol=1e-4)
    if "sdi_steps" in change:
        assert [r.calls for r in found] == [5, 3]  # strides of 100 and of 334


@pytest.mark.parametrize(
    "change", [{"csd_empty": 1.5}, {"sdi_steps": 0}, {"sdi_cfg": math.inf}, {"sdi_noise": -1.0}, {"asd_shift": -0.1}]
)
def test_bad_parameters_name_their_field(change):
    with pytest.raises(InputError) as error:
        replace(PRESETS["official"].config.guidance, **change)
    assert [error.value.field] == list(change)


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
    result = tsm(teacher, z, noise, Timesteps(500, 420), cond, gamma=0.3)
    assert [n for n, _ in teacher.calls] == [2, 2, 2, 2, 8]
    assert result.samples == 3 + 1 + 4
    plain = tsm(SmoothTeacher(), z, noise, Timesteps(500, 420), c, gamma=0.3)
    assert not torch.allclose(result.gradient[0], plain.gradient[0])
    torch.testing.assert_close(result.gradient[1], plain.gradient[1])  # weight 0


def test_perp_neg_weights_by_azimuth():
    def at(azimuth):
        return perp_neg_weights(torch.tensor([float(azimuth)]), PerpNeg())[0].tolist()

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
    config = PromptConfig("a mug", perp_neg=True, perp_neg_weights=PerpNeg(-1.0, 0.0, 0.0))
    cond = encode_prompts(OneHot(), config).at(orbit_cameras([45.0], 0.0, 3.0, 0.6, 64))
    assert [float(n.weight) for n in cond.perpendicular] == [-1.0, -1.0]
    with pytest.raises(InputError, match=r"perp_neg_weights.weight: expected a finite number of 0 or below, got 2"):
        PerpNeg(2.0)


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
