"""Published timesteps on teachers of other schedules: fewer levels, other levels, a last level that is pure noise."""

import math

import pytest
import torch
from test_guidance import SIGMAS, SmoothTeacher, conditioning, latents
from test_guidance_neighbours import with_artefact

from dreamer_core.guidance import METHODS, GuidanceConfig, Timesteps, sample_timesteps
from dreamer_core.guidance.tsm import TSM
from dreamer_core.teachers.noise_levels import noise_level, scaled_linear_sigmas
from dreamer_core.teachers.noise_schedule import schedule_from_config, zero_terminal_sigmas

SCHEDULES = {
    "zero terminal SNR": zero_terminal_sigmas(SIGMAS),
    "50 levels, as LCM": SIGMAS[19::20],
    "500 steps": scaled_linear_sigmas(steps=500),
    "other betas": scaled_linear_sigmas(0.0001, 0.02),
    "3 levels": torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64),
    "single precision": SIGMAS.float(),
}


class Scheduled(SmoothTeacher):
    def __init__(self, sigmas):
        super().__init__()
        self.sigmas = sigmas


def nearest(sigmas, t):
    """Brute force: the level whose ratio to that of timestep `t` is nearest to 1."""
    return min(sigmas.tolist(), key=lambda s: abs(math.log(s / float(SIGMAS[t]))))


def test_a_standard_schedule_gives_its_own_levels():
    diffusers_own = schedule_from_config({"num_train_timesteps": 1000}).sigmas
    for sigmas in (SIGMAS, diffusers_own, SIGMAS.float()):
        assert [noise_level(sigmas, t) for t in range(1000)] == sigmas.tolist()


@pytest.mark.parametrize("name", SCHEDULES)
def test_other_schedules_give_the_nearest_of_theirs(name):
    for t in (1, 20, 21, 333, 500, 980, 998, 999):
        assert noise_level(SCHEDULES[name], t) == nearest(SCHEDULES[name], t)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_method_runs_on_it(name, method):
    (z, noise), cond = latents(), with_artefact(conditioning())
    config = GuidanceConfig(method=method(), t_max=999, t_min=999)
    drawn = [sample_timesteps(config, 0, torch.Generator(), progress) for progress in (0.0, 0.5)]
    for steps in (*drawn, Timesteps(500, 420, t_min=21), Timesteps(1, 1)):
        teacher = Scheduled(SCHEDULES[name])
        assert torch.isfinite(config.method(teacher, z, noise, steps, cond).gradient).all()
        asked = {sigma for _, levels in teacher.calls for sigma in levels}
        assert asked <= set(teacher.sigmas.tolist())
    assert drawn[0].t == 999


def test_levels_that_are_not_asked_for_do_not_count():
    """A teacher that knows only the levels of the step gives the same gradient as one that knows all."""
    (z, noise), cond, steps = latents(), conditioning(), Timesteps(500, 420)
    mu = 420 + round(0.3 * 80)
    few = Scheduled(SIGMAS[[1, 201, 401, 420, mu, 500]])
    expected = TSM(gamma=0.3)(SmoothTeacher(), z, noise, steps, cond).gradient
    torch.testing.assert_close(TSM(gamma=0.3)(few, z, noise, steps, cond).gradient, expected, rtol=0, atol=0)
