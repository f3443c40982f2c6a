"""The measurement of TSM's mechanism, on a teacher whose paths are known: data of unit Gaussians."""

import pytest
import torch

from dreamer_core.guidance import GuidanceConditioning
from dreamer_core.teachers.moves import FIRST_TIMESTEP
from dreamer_core.teachers.noise_levels import noise_level, scaled_linear_sigmas
from dreamer_core.teachers.teacher import Conditioning, PlainTeacher
from starter.mechanism import GAMMAS, MEASURES, TIMES, ExactPath, Row, averaged, measure, table


class UnitGaussians(PlainTeacher):
    """eps = sigma x / (1 + sigma^2), so that x(sigma) grows as sqrt(1 + sigma^2); the prompt moves the mean."""

    sigmas = scaled_linear_sigmas()

    def eps(self, x, sigma, cond):
        level = sigma[:, None, None, None]
        return level * (x - cond.tokens[:, :1, :1, None]) / (1 + level.square())


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    words, none = (Conditioning(torch.full((2, 1, 1), value)) for value in (0.5, 0.0))
    return UnitGaussians(), z, GuidanceConditioning(words, none, none), noise


def test_the_exact_path_is_the_solution(scene):
    teacher, z, cond, noise = scene
    first, last = (noise_level(teacher.sigmas, t) for t in (FIRST_TIMESTEP, 500))
    solution = (z + first * noise) * ((1 + last**2) / (1 + first**2)) ** 0.5
    errors = [
        float((ExactPath(teacher, z, noise, cond.inversion, fine).at(500) - solution).norm() / solution.norm())
        for fine in (5, 50)
    ]
    assert errors[0] < 0.01
    assert errors[1] > 5 * errors[0]


def test_measures_by_t_and_gamma(scene):
    teacher, z, cond, noise = scene
    rows = measure(teacher, z, cond, noise, ExactPath(teacher, z, noise, cond.inversion, 5))
    assert [(r.t, r.gamma) for r in rows] == [(t, g) for t in TIMES for g in GAMMAS]
    by = {(r.t, r.gamma): r for r in rows}
    assert by[500, 0.0].path == by[500, 0.3].path > 0.01  # of x_t, which gamma does not touch
    # In this linear world both paths err along x: the second error takes away of the first, and more the nearer mu is.
    assert all(r.alike > 0.99 for r in rows if r.t >= 300)
    kept = [by[500, gamma].kept for gamma in GAMMAS]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 0.2
    assert "| 0 (ISM) |" in table(rows, "kept")


def test_averages():
    one, other = (Row(100, 0.3, **dict.fromkeys(MEASURES, value)) for value in (1.0, 2.0))
    assert averaged([one, other]) == Row(100, 0.3, **dict.fromkeys(MEASURES, 1.5))
