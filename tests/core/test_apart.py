"""Views on threads of their own: the same gradients, and threads elsewhere as they were."""

import threading
from dataclasses import replace

import numba
import pytest
import torch
from analytic import AnalyticTeacher, CameraPrompts, drift, two_colour_object

from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.apart import views_apart, workers_for
from dreamer_core.optimize.encoding import encode_both_ways
from dreamer_core.teachers.teacher import Conditioning, Request

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Recording:
    """A differentiable teacher that tells who asked for what."""

    sigmas = torch.linspace(0.1, 10, 1000, dtype=torch.float64)

    def __init__(self):
        self.calls = []

    def note(self, what, views):
        self.calls.append((what, views, threading.get_ident(), torch.get_num_threads()))

    def predict(self, requests):
        self.note("predict", len(requests[0].x))
        assert requests[0].x is requests[1].x
        return [r.x * r.sigma + r.cond.tokens.mean() for r in requests]

    def encode(self, images):
        self.note("encode", len(images))
        return images.movedim(-1, 1).square().cumsum(-1)


def in_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_every_worker_takes_its_views_alone(two_threads):
    teacher, here = Recording(), threading.get_ident()
    x = torch.randn(4, 3, 8, 8)
    cond = Conditioning(torch.ones(4, 2, 2))
    requests = [Request(x, 2.0, cond, "positive"), Request(x, 2.0, cond, "negative")]
    images = torch.rand(4, 8, 8, 3, requires_grad=True)
    with views_apart(teacher, 4, 64, CPU) as apart:
        found = apart.predict(requests)
        latents, back = encode_both_ways(apart, images)
        gradient = back(x)
    assert [(what, views, threads) for what, views, _, threads in teacher.calls] == [
        ("predict", 2, 1),
        ("predict", 2, 1),
        ("encode", 2, 1),
        ("encode", 2, 1),
    ]
    assert here not in {thread for _, _, thread, _ in teacher.calls}
    torch.testing.assert_close(found[0], 2 * x + 1)
    plain = images.detach().requires_grad_(True)
    plain_latents = teacher.encode(plain)
    plain_latents.backward(x)
    torch.testing.assert_close(gradient, plain.grad)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, plain_latents.detach())


def test_other_threads_keep_theirs(two_threads):
    numba.get_num_threads()
    torch.set_num_threads(2)  # numba, when it starts, has set its own
    kernels = numba.get_num_threads()
    with views_apart(Recording(), 2, 128, CPU):
        assert torch.get_num_threads() == 1
        assert numba.get_num_threads() == 1
        assert in_new_thread(torch.get_num_threads) == 2
    assert torch.get_num_threads() == 2
    assert numba.get_num_threads() == kernels
    assert in_new_thread(torch.get_num_threads) == 2


def test_threads_come_back_after_an_error(two_threads):
    teacher = Recording()
    teacher.encode = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError), views_apart(teacher, 2, 128, CPU) as apart, torch.no_grad():
        apart.encode(torch.rand(2, 8, 8, 3))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("views", "resolution", "device", "workers"),
    [(2, 128, "cpu", 2), (4, 256, "cpu", 2), (1, 128, "cpu", 1), (3, 128, "cpu", 1), (2, 320, "cpu", 1),
     (2, 128, "meta", 1)],
)  # fmt: skip
def test_who_goes_apart(two_threads, views, resolution, device, workers):
    assert workers_for(views, resolution, torch.device(device)) == workers
    teacher = Recording()
    with views_apart(teacher, views, resolution, torch.device(device)) as found:
        assert (found is teacher) == (workers == 1)


def test_a_teacher_of_groups_keeps_its_views_together(two_threads):
    teacher = Recording()
    for adapter, together in ((False, False), (None, False), (True, True), (object(), True)):
        teacher.multiview = adapter
        with views_apart(teacher, 4, 128, CPU) as found:
            assert (found is teacher) == together
            assert torch.get_num_threads() == (2 if together else 1)


def test_a_run_is_the_same_apart(two_threads):
    teacher = AnalyticTeacher(two_colour_object(), 64)
    config = replace(PRESETS["starter"].config, steps=3, resolution=64)

    def means(apart):
        start = initial_shape("sphere", 200, torch.Generator().manual_seed(0))
        state = OptimizationState.create(start, config.learning_rates)
        with views_apart(teacher, config.views if apart else 1, 64, CPU) as used:
            list(optimize(state, used, CameraPrompts(), config, "numba"))
        return [state.params["means"]]

    assert drift(means(True), means(False)) < 1e-5
