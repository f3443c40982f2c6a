"""Out of memory, and NaN that does not stop: a run goes on with less, or keeps what was good."""

import logging
from dataclasses import replace

import pytest
import torch
from analytic import AnalyticTeacher, CameraPrompts, drift, two_colour_object

from dreamer_core.errors import DivergenceError
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, BackgroundConfig, OptimizationState, loop, optimize
from dreamer_core.optimize import run as run_module
from dreamer_core.optimize.run import Run
from dreamer_core.optimize.shortage import is_out_of_memory

VIEWS = 4
CPU = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError(CPU),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


class Scarce(AnalyticTeacher):
    """Has memory for a number of samples per network call, and of images with a graph."""

    def __init__(self, samples=99, images=99, error=ERRORS[0]):
        super().__init__(two_colour_object(), 64)
        self.samples, self.images, self.error = samples, images, error
        self.encoded = []

    def encode(self, images):
        self.encoded.append(len(images))
        if images.requires_grad and len(images) > self.images:
            raise self.error
        return super().encode(images)

    def eps(self, x, sigma, cond):
        if len(x) > self.samples:
            raise self.error
        return super().eps(x, sigma, cond)


def config(**changes):
    starter = PRESETS["starter"].config
    guidance = replace(starter.guidance, flip=0.5, offset_noise=0.1)
    base = {"steps": 3, "views": VIEWS, "resolution": 64, "background": BackgroundConfig(), "guidance": guidance}
    return replace(starter, **{**base, **changes})


def made(teacher, **changes):
    cfg = config(**changes)
    state = OptimizationState.create(initial_shape("sphere", 200, torch.Generator().manual_seed(0)), cfg.learning_rates)
    return state, list(optimize(state, teacher, CameraPrompts(), cfg, "numba"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: str(e)[:20] or "MemoryError")
def test_what_says_that_memory_ran_out(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(("limits", "at_once"), [({"images": 2}, 2), ({"images": 1}, 1), ({"samples": 3}, 1)])
def test_half_as_much_at_once_gives_the_same(limits, at_once, caplog):
    whole, reports = made(Scarce())
    assert [r.at_once for r in reports] == [None] * 3
    with caplog.at_level(logging.WARNING):
        scarce, reports = made(Scarce(**limits))
    said = [r.getMessage() for r in caplog.records]
    halvings = {2: ["2 of 4"], 1: ["2 of 4", "1 of 4"]}[at_once]
    assert said == [f"Out of memory: from step 0 on, {n} views at a time" for n in halvings]
    assert [r.at_once for r in reports] == [at_once] * 3  # the later steps do not try again
    assert [r.network_evaluations for r in reports] == [r.network_evaluations for r in made(Scarce())[1]]
    assert drift(whole.params.values(), scarce.params.values()) < 2e-4


def test_in_the_middle_of_a_run_only_the_step_is_made_again(caplog):
    """With gradients left from the failed attempt, or a step counted twice, the result would differ."""
    whole, _ = made(Scarce())
    teacher = Scarce()
    plain, failed = loop.back_propagate, []

    def once(*arguments):
        terms = plain(*arguments)
        if arguments[0].step == 1 and not failed:
            failed.append(1)
            raise RuntimeError(CPU)
        return terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "back_propagate", once)
        state, reports = made(teacher)
    assert failed == [1]
    assert [r.at_once for r in reports] == [None, 2, 2]
    assert drift(whole.params.values(), state.params.values()) < 2e-4


@pytest.mark.parametrize("recompute", [False, True])
def test_one_view_that_is_too_much_says_what_to_do(recompute, caplog):
    with pytest.raises(torch.OutOfMemoryError, match=r"one view at a time is too much; use memory low or a smaller"):
        made(Scarce(samples=0), recompute_encoder=recompute)
    assert len(caplog.records) == 2  # 2 of 4, 1 of 4
    with pytest.raises(torch.OutOfMemoryError, match="one view"):
        made(Scarce(samples=0), views=1, recompute_encoder=recompute)


def test_a_single_view_is_encoded_twice_to_save_memory():
    teacher = Scarce(images=0)
    with pytest.raises(torch.OutOfMemoryError):
        made(teacher, views=1)
    assert teacher.encoded == [1, 1, 1]  # with a graph; without one, and in the backward pass


def test_out_of_memory_in_an_update_is_not_tried_again(monkeypatch):
    """Adam has moved already."""

    def fail(*_):
        raise torch.OutOfMemoryError("in density control")

    monkeypatch.setattr(loop.density, "refine", fail)
    with pytest.raises(torch.OutOfMemoryError, match="in density control"):
        made(Scarce())


class Kept:
    """A store that remembers what was saved."""

    def __init__(self):
        self.saved = []

    def load(self, steps, rates, device):
        return None

    def save(self, state):
        self.saved.append((state.step, state.tensors()))


class Storm(Scarce):
    """NaN from the network from a step on."""

    def __init__(self, calm):
        super().__init__()
        self.calm = calm

    def encode(self, images):
        self.calm -= 1
        return super().encode(images)

    def eps(self, x, sigma, cond):
        out = super().eps(x, sigma, cond)
        return out if self.calm >= 0 else out * float("nan")


def go(teacher, cfg, store, on_step=lambda report: None):
    start = initial_shape("sphere", 200, torch.Generator().manual_seed(0))
    run = Run.begin(cfg, store, start, torch.device("cpu"))
    run.go(teacher, CameraPrompts(), "numba", on_step)
    return run


def test_a_storm_of_nan_keeps_the_last_good_state():
    calm, _ = made(Scarce(), views=1)
    store = Kept()
    with pytest.raises(DivergenceError, match="the last state before them is kept"):
        go(Storm(3), config(views=1, steps=60), store)
    (step, tensors) = store.saved[-1]
    assert step == 3
    assert all(torch.equal(tensors[name], value) for name, value in calm.tensors().items())


def test_gaussians_of_nan_are_never_saved_over_good_ones():
    store = Kept()

    def on_step(report):
        if report.step == 2:
            with torch.no_grad():
                run_state[0].params["means"][0] = float("nan")
            raise RuntimeError("stopped")

    run_state = []
    plain = Run.begin

    def begin(*arguments):
        run = plain(*arguments)
        run_state.append(run.state)
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "begin", begin)
        with pytest.raises(RuntimeError, match="stopped"):
            go(Scarce(), config(views=1, steps=60), store, on_step)
    assert store.saved == []


def test_a_run_that_ends_in_nan_is_no_finished_one(monkeypatch):
    """Too few bad steps to give up, and then no Gaussians: the state before them must not pass for the result."""
    store, plain = Kept(), run_module.optimize

    def poisoned(state, *rest):
        for report in plain(state, *rest):
            if report.step == 4:
                state.params["means"].data[0] = float("nan")
            yield report

    monkeypatch.setattr(run_module, "optimize", poisoned)
    with pytest.raises(DivergenceError, match="means of the Gaussians holds NaN or inf after step 6"):
        go(Storm(3), config(views=1, steps=6), store)
    assert [step for step, _ in store.saved] == [3]
