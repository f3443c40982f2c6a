"""TSM against a literal transcription in DDIM notation, and how often the network is called."""

import itertools

import pytest
import torch

from dreamer_core.guidance import GuidanceConditioning, Timesteps
from dreamer_core.guidance.ism import ISM
from dreamer_core.guidance.sds import SDS
from dreamer_core.guidance.tsm import TSM
from dreamer_core.teachers.moves import invert, nearest_timestep, offset_noise
from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
from dreamer_core.teachers.teacher import Conditioning, PlainTeacher

SIGMAS = scaled_linear_sigmas()
ALPHAS = 1 / (1 + SIGMAS**2)


class SmoothTeacher(PlainTeacher):
    """A smooth nonlinear predictor in float64 that depends on x, sigma and the condition; counts its calls."""

    def __init__(self):
        self.sigmas = SIGMAS
        self.calls = []
        g = torch.Generator().manual_seed(3)
        self.mix = torch.randn(4, 4, generator=g, dtype=torch.float64) / 2

    def eps(self, x, sigma, cond):
        self.calls.append((len(x), tuple(sigma.tolist())))
        s = sigma[:, None, None, None]
        mixed = torch.einsum("oc,bchw->bohw", self.mix, x / (1 + s * s).sqrt())
        return torch.tanh(mixed + cond.pooled[:, :1, None, None]) + 0.1 * torch.sin(s)

    def encode(self, images):
        raise AssertionError("guidance never encodes")


def conditioning(batch=2):
    def one(value):
        tokens = torch.zeros(batch, 1, 1, dtype=torch.float64)
        return Conditioning(tokens, torch.full((batch, 1), value, dtype=torch.float64))

    return GuidanceConditioning(one(0.7), one(-0.4), one(0.1))


def latents(batch=2):
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 4, 6, 6, generator=g, dtype=torch.float64),
        torch.randn(batch, 4, 6, 6, generator=g, dtype=torch.float64),
    )


def ddim_transcription(teacher, z, noise, t, s, gamma, cfg, cond, stride=200):
    """The paper's algorithm in variance-preserving form: sqrt(a) z + sqrt(1 - a) n, DDIM steps between timesteps.

    The noise enters at timestep 1, as in the released code, whose scheduler has `steps_offset` 1.
    """

    def eps(x_vp, at, c):
        a = ALPHAS[at]
        return teacher.eps(x_vp / a.sqrt(), torch.full((len(x_vp),), float(SIGMAS[at]), dtype=torch.float64), c)

    def ddim(x_vp, e, start, end):
        x0 = (x_vp - (1 - ALPHAS[start]).sqrt() * e) / ALPHAS[start].sqrt()
        return ALPHAS[end].sqrt() * x0 + (1 - ALPHAS[end]).sqrt() * e

    x = ALPHAS[1].sqrt() * z + (1 - ALPHAS[1]).sqrt() * noise
    times = [*range(1, s, stride), s]  # 1, 201, 401, ..., s
    for start, end in itertools.pairwise(times):
        x = ddim(x, eps(x, start, cond.inversion), start, end)
    e_s = eps(x, s, cond.inversion)
    mu = s + round(gamma * (t - s))
    e_mu = eps(ddim(x, e_s, s, mu), mu, cond.inversion)
    x_t = ddim(x, e_s, s, t)
    negative, positive = eps(x_t, t, cond.negative), eps(x_t, t, cond.positive)
    e_cfg = negative + cfg * (positive - negative)
    return ((1 - ALPHAS[t]) / ALPHAS[t]).sqrt() * (e_cfg - e_mu)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.91**0.5, 1.0])
@pytest.mark.parametrize(
    ("t", "s"), [(980, 880), (500, 420), (310, 210), (90, 1), (21, 1), (281, 201), (282, 202), (1, 1)]
)
def test_tsm_equals_the_transcription(t, s, gamma):
    z, noise = latents()
    cond = conditioning()
    expected = ddim_transcription(SmoothTeacher(), z, noise, t, s, gamma, 7.5, cond)
    got = TSM(gamma=gamma, cfg=7.5)(SmoothTeacher(), z, noise, Timesteps(t, s), cond)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)


def test_gamma_zero_is_ism_bit_for_bit():
    z, noise = latents()
    a = TSM(gamma=0.0)(SmoothTeacher(), z, noise, Timesteps(500, 420), conditioning())
    b = ISM()(SmoothTeacher(), z, noise, Timesteps(500, 420), conditioning())
    assert torch.equal(a.gradient, b.gradient)
    c = TSM(gamma=0.3)(SmoothTeacher(), z, noise, Timesteps(500, 420), conditioning())
    assert not torch.allclose(a.gradient, c.gradient)


def test_ism_is_the_published_difference():
    z, noise = latents()
    cond = conditioning()
    got = ISM(cfg=7.5)(SmoothTeacher(), z, noise, Timesteps(500, 420), cond)
    expected = ddim_transcription(SmoothTeacher(), z, noise, 500, 420, 0.0, 7.5, cond)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("s", "inversions"), [(1, 0), (2, 1), (201, 1), (202, 2), (420, 3), (880, 5)])
def test_evaluations_per_step(s, inversions):
    """ceil((s - 1) / 200) inversion calls, one evaluation of e_s, one batched call for the remaining three."""
    teacher = SmoothTeacher()
    z, noise = latents(batch=2)
    t = s + 80
    result = TSM(gamma=0.3)(teacher, z, noise, Timesteps(t, s), conditioning(2))
    batches = [n for n, _ in teacher.calls]
    assert batches == [2] * inversions + [2] + [6]
    assert result.calls == len(batches) == inversions + 2
    assert result.samples == inversions + 4
    mu = s + round(0.3 * 80)
    last = [float(SIGMAS[t])] * 4 + [float(SIGMAS[mu])] * 2
    assert list(teacher.calls[-1][1]) == pytest.approx(last)
    # Every evaluation happens at a noise level of its own: nothing is computed twice.
    levels = [levels[0] for _, levels in teacher.calls[:-1]]
    assert len(set(levels)) == len(levels)


def test_ism_needs_one_evaluation_less():
    teacher = SmoothTeacher()
    z, noise = latents(2)
    result = ISM()(teacher, z, noise, Timesteps(500, 420), conditioning(2))
    assert [n for n, _ in teacher.calls] == [2, 2, 2, 2, 4]
    assert result.samples == 3 + 3


@pytest.mark.parametrize("stride", [50, 200, 1000])
def test_stride_sets_the_number_of_inversion_calls(stride):
    z, noise = latents(1)
    _, calls = invert(SmoothTeacher(), z, 420, conditioning(1).inversion, noise, stride)
    assert calls == {50: 9, 200: 3, 1000: 1}[stride]
    teacher = SmoothTeacher()
    ISM()(teacher, z, noise, Timesteps(500, 420, stride=stride), conditioning(1))
    assert len(teacher.calls) == calls + 2


def test_sds_is_dreamfusion():
    teacher, (z, noise), cond = SmoothTeacher(), latents(), conditioning()
    got = SDS(cfg=100.0)(teacher, z, noise, Timesteps(400, 1), cond)
    a = ALPHAS[400]
    x_vp = a.sqrt() * z + (1 - a).sqrt() * noise
    sigma = torch.full((2,), float(SIGMAS[400]), dtype=torch.float64)
    negative = teacher.eps(x_vp / a.sqrt(), sigma, cond.negative)
    positive = teacher.eps(x_vp / a.sqrt(), sigma, cond.positive)
    expected = SIGMAS[400] * (negative + 100 * (positive - negative) - noise)
    torch.testing.assert_close(got.gradient, expected, rtol=1e-9, atol=1e-8)
    assert got.samples == 2
    assert teacher.calls[0][0] == 4


def test_one_shared_path_cancels_a_constant_error():
    """A bias that the network adds everywhere leaves both paths alike, so TSM's difference does not see it."""

    class Biased(SmoothTeacher):
        def eps(self, x, sigma, cond):
            return torch.full_like(x, 0.37)

    z, noise = latents()
    result = TSM(gamma=0.3)(Biased(), z, noise, Timesteps(500, 420), conditioning())
    assert result.gradient.abs().max() == 0


def test_offset_noise_is_one_draw_per_channel_for_the_batch():
    shape = torch.Size([3, 4, 16, 16])
    shifts = []
    for seed in range(200):
        plain = offset_noise(shape, 0.0, torch.Generator().manual_seed(seed))
        shift = offset_noise(shape, 0.1, torch.Generator().manual_seed(seed)) - plain
        torch.testing.assert_close(shift, shift[:1, :, :1, :1].expand(shape), rtol=0, atol=1e-6)
        shifts.append(shift[0, :, 0, 0])
        assert len(set(shifts[-1].tolist())) == 4
    assert torch.stack(shifts).std() == pytest.approx(0.1, rel=0.1)
    plain = offset_noise(torch.Size([64, 4, 16, 16]), 0.0, torch.Generator().manual_seed(0))
    assert plain.mean(dim=(2, 3)).std() == pytest.approx(1 / 16, rel=0.15)


def test_nearest_timestep_inverts_the_table():
    times = torch.tensor([0, 1, 21, 500, 999])
    assert torch.equal(nearest_timestep(SIGMAS[times], SIGMAS), times)


def test_conditioning_of_several_chunks_can_be_joined():
    short = Conditioning(torch.randn(1, 77, 8), torch.randn(1, 4))
    long = Conditioning(torch.randn(2, 154, 8), torch.randn(2, 4))
    both = Conditioning.cat([short, long])
    assert both.tokens.shape == (3, 154, 8)
    torch.testing.assert_close(both.tokens[0], torch.cat([short.tokens[0]] * 2))
    with pytest.raises(ValueError, match="one sample"):
        long.expand(3)
