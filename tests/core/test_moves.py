"""Euler steps in VE form against diffusers' DDIM schedulers, and the inversion built from them."""

from math import ceil

import pytest
import torch

from dreamer_core.teachers.moves import euler_step, invert, nearest_timestep, offset_noise
from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
from dreamer_core.teachers.teacher import Conditioning, PlainTeacher

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
SIGMAS = scaled_linear_sigmas()
EMPTY = Conditioning(torch.zeros(1, 1, 1), torch.zeros(1, 1))


def vp(x, t):
    """VE latents in the variance-preserving form of the schedulers."""
    return x / (1 + SIGMAS[t] ** 2).sqrt()


def pair(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, 4, 8, 8, generator=generator, dtype=torch.float64)


def test_sigmas_are_the_published_ones():
    from diffusers import DDIMScheduler

    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.double()
    torch.testing.assert_close(SIGMAS, ((1 - alphas) / alphas).sqrt(), rtol=1e-4, atol=0)
    assert SIGMAS.dtype == torch.float64
    assert float(SIGMAS[0]) == pytest.approx(0.0292, abs=1e-4)
    assert float(SIGMAS[999]) == pytest.approx(14.6146, abs=1e-3)


@pytest.mark.parametrize(("start", "end"), [(999, 799), (500, 300), (300, 280), (120, 70), (250, 0), (25, 5)])
def test_a_step_down_is_ddim(start, end):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULE, set_alpha_to_one=False)
    scheduler.set_timesteps(1000 // (start - end))
    z, eps = pair(start)
    x = z + SIGMAS[start] * eps
    expected = scheduler.step(eps, start, vp(x, start), eta=0.0).prev_sample
    ours = vp(euler_step(x, eps, float(SIGMAS[start]), float(SIGMAS[end])), end)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("start", "end"), [(0, 200), (200, 400), (400, 450), (480, 500), (799, 999), (5, 25)])
def test_a_step_up_is_inverse_ddim(start, end):
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler(**SCHEDULE, set_alpha_to_one=False)
    scheduler.set_timesteps(1000 // (end - start))
    z, eps = pair(end)
    x = z + SIGMAS[start] * eps
    expected = scheduler.step(eps, end, vp(x, start)).prev_sample  # takes the timestep it goes to
    ours = vp(euler_step(x, eps, float(SIGMAS[start]), float(SIGMAS[end])), end)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


class Recording(PlainTeacher):
    """A predictor of zero noise that remembers at which sigma it was asked."""

    sigmas = SIGMAS

    def __init__(self):
        self.asked = []

    def eps(self, x, sigma, cond):
        self.asked.append(sigma.tolist())
        return torch.zeros_like(x)


@pytest.mark.parametrize("stride", [50, 200])
@pytest.mark.parametrize("s", [1, 2, 200, 201, 202, 420, 900])
def test_inversion_takes_as_few_calls_as_the_stride_allows(s, stride):
    predictor = Recording()
    z = torch.randn(2, 4, 8, 8)
    x, calls = invert(predictor, z, s, EMPTY, torch.zeros_like(z), stride)
    assert calls == len(predictor.asked) == ceil((s - 1) / stride)
    visited = [float(SIGMAS[t]) for t in range(1, s, stride)]
    assert [row[0] for row in predictor.asked] == pytest.approx(visited)
    assert all(row[0] == row[1] for row in predictor.asked)
    torch.testing.assert_close(x, z)  # zero noise everywhere: nothing moves


def test_the_noise_enters_at_timestep_1():
    """Where DDIM ends with SDXL's published scheduler settings."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULE, steps_offset=1, timestep_spacing="leading")
    scheduler.set_timesteps(1000)
    lowest = int(scheduler.timesteps[-1])
    alpha = float(scheduler.alphas_cumprod[lowest])
    z, noise = pair(1)
    x, calls = invert(Recording(), z, lowest, EMPTY, noise)
    assert (lowest, calls) == (1, 0)
    torch.testing.assert_close(x, z + ((1 - alpha) / alpha) ** 0.5 * noise, rtol=1e-5, atol=1e-6)
    assert ((1 - alpha) / alpha) ** 0.5 == pytest.approx(0.0413, abs=5e-5)


def test_inversion_with_the_true_noise_lands_on_the_noised_latents():
    class Known(Recording):
        def eps(self, x, sigma, cond):
            super().eps(x, sigma, cond)
            return noise

    z, noise = pair(3)
    x, _ = invert(Known(), z, 437, EMPTY, noise)
    torch.testing.assert_close(x, z + SIGMAS[437] * noise)


def test_the_nearest_timestep_of_every_sigma_is_its_own():
    steps = torch.arange(1000)
    assert torch.equal(nearest_timestep(SIGMAS, SIGMAS), steps)
    assert torch.equal(nearest_timestep(SIGMAS.float() * 1.0005, SIGMAS), steps)
    assert nearest_timestep(torch.tensor([1e-9, 1e9]), SIGMAS).tolist() == [0, 999]


def test_offset_noise_has_its_variance_and_is_constant_per_channel():
    shape = torch.Size((2, 400, 16, 16))
    plain = offset_noise(shape, 0.0, torch.Generator().manual_seed(0))
    offset = offset_noise(shape, 0.5, torch.Generator().manual_seed(0)) - plain
    assert float(plain.std()) == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(offset, offset[:1, :, :1, :1].expand(shape), rtol=0, atol=1e-6)
    assert float(offset[0, :, 0, 0].std()) == pytest.approx(0.5, abs=0.05)
