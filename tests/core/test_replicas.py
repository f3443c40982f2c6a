"""Replicas in processes of their own: the result of one device, and what happens when one of them is lost."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from analytic import AnalyticTeacher, CameraPrompts, drift, two_colour_object

from dreamer_core.cli import main, session
from dreamer_core.errors import ReplicaError
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, BackgroundConfig, DensityConfig, OptimizationState, optimize
from dreamer_core.optimize.apart import views_apart
from dreamer_core.optimize.encoding import encode_both_ways
from dreamer_core.optimize.replicas import replicated
from dreamer_core.teachers.teacher import Conditioning, Request

CPU = torch.device("cpu")
kills = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes by a signal")


class Moody(AnalyticTeacher):
    """Has no memory for more than `most` views with a graph, and no understanding of noise above `noisiest`."""

    most, noisiest, replicas = 9, 1e9, ()

    def encode(self, images):
        if images.requires_grad and len(images) > self.most:
            raise MemoryError
        return super().encode(images)

    def predict(self, requests):
        if requests[0].sigma > self.noisiest:
            raise ValueError("too much\nnoise")
        return super().predict(requests)


def here(device):
    return Moody(two_colour_object(), 64)


def moody(device):
    teacher = here(device)
    teacher.most, teacher.noisiest = 1, 50.0
    return teacher


def broken(device):
    raise OSError(f"no weights for {device}")


def config(**changes):
    official = PRESETS["official"].config
    base = {
        "steps": 5,
        "views": 3,
        "resolution": 64,
        "schedule_steps": 60,
        "background": BackgroundConfig(),
        "density": DensityConfig(start=1, stop=40, every=2, grow_gradient=1e-2, reset_every=4, split_scale=0.06),
    }
    return replace(official, **{**base, **changes})


def made(teacher, cfg):
    start = initial_shape("sphere", 300, torch.Generator().manual_seed(0))
    state = OptimizationState.create(start, cfg.learning_rates)
    with views_apart(teacher, cfg.views, 320, CPU) as shared:
        reports = list(optimize(state, shared, CameraPrompts(), cfg, "numba"))
    return state, reports


def same(one, other):
    (a, reports), (b, others) = one, other
    assert [r.gaussians for r in reports] == [r.gaussians for r in others]
    assert drift(a.params.values(), b.params.values()) < 1e-4
    for mine, theirs in zip(reports, others, strict=True):
        for name in ("t", "s", "depth", "clipped", "gradient_norm", "image_gradient_norm", "regularizers"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-3)


@kills
def test_two_processes_give_the_result_of_one(caplog):
    """Three views on two: depth, scale noise, regularisers, growing, pruning, resets; with a graph at once or not."""
    teacher = here("cpu")
    cases = {"all": config(), "again": config(recompute_encoder=True, steps=1), "scarce": config(views=4, steps=1)}
    alone = {name: made(teacher, cfg) for name, cfg in cases.items()}
    assert len({report.gaussians for report in alone["all"][1]}) > 2  # density control did something
    with replicated(teacher, moody, ["cpu"]):
        for name, cfg in cases.items():
            assert not caplog.records
            same(made(teacher, cfg), alone[name])
        assert "2 of 4 views at a time" in caplog.text  # the replica has no memory for two
        replica = teacher.replicas[1]
        os.kill(replica._process.pid, signal.SIGINT)  # Ctrl-C, which a terminal sends to all, is not for replicas
        with pytest.raises(ReplicaError, match="The teacher on cpu: ValueError: too much noise"):
            replica.predict([Request(torch.zeros(1, 4, 32, 32), 99.0, Conditioning(torch.zeros(1, 1, 25)), "positive")])
        os.kill(replica._process.pid, signal.SIGKILL)
        with pytest.raises(ReplicaError, match="on cpu was killed by signal 9; what was saved until then is kept"):
            made(teacher, cases["all"])
    assert not teacher.replicas
    assert not multiprocessing.active_children()


SMALL = ["--preset", "starter", "--steps", "4", "--resolution", "64", "--count", "150", "--device", "cpu,cpu"]


@pytest.fixture
def command(tiny_sdxl_dir, tmp_path, monkeypatch):
    """A function that runs `generate` on two processes; the first hook is called in its third step."""
    monkeypatch.setattr(session, "write_mp4", lambda frames, path, metadata: None)
    plain = session.row

    def run(hook, *options):
        def row(report):
            if report.step == 2:
                hook(multiprocessing.active_children())
            return plain(report)

        monkeypatch.setattr(session, "row", row)
        words = ["generate", "a red mug", "--model", str(tiny_sdxl_dir), *SMALL, "--out", str(tmp_path / "mug")]
        code = main([*words, *options])
        assert not multiprocessing.active_children()
        return code

    return run


@kills
def test_a_lost_process_ends_the_run_which_goes_on_with_one(command, tmp_path, capsys):
    assert command(lambda children: os.kill(children[0].pid, signal.SIGKILL)) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == (
        "generate: The process of the teacher on cpu was killed by signal 9; what was saved until then is kept; a run "
        "that has saved its state goes on with --resume and its --out"
    )
    log = json.loads((tmp_path / "mug" / "run.json").read_text())
    assert (log["status"], log["steps_made"], log["device"]) == ("failed", 3, "cpu,cpu")
    assert command(lambda children: None, "--device", "cpu", "--resume") == 0
    steps = [line.split(",")[0] for line in (tmp_path / "mug" / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "0", "1", "2", "3"]


def test_the_way_back_of_latents_elsewhere():
    """Of another dtype here, for want of another device: the gradient goes where the latents are."""

    class Elsewhere:
        def encode(self, images):
            return 3 * images.double()

    latents, back = encode_both_ways(Elsewhere(), torch.ones(2, 4, 4, 3))
    assert latents.dtype == torch.float64
    torch.testing.assert_close(back(torch.ones(2, 4, 4, 3)), torch.full((2, 4, 4, 3), 3.0))


def test_a_replica_that_cannot_be_loaded():
    teacher = here("cpu")
    failing = replicated(teacher, broken, ["cpu", "cpu"])
    with pytest.raises(ReplicaError, match="The teacher on cpu: OSError: no weights for cpu"), failing:
        raise AssertionError
    assert not teacher.replicas
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cpu,cpu,cpu", "--views", "2"], "--device: expected at most as many as views, 2, got 3"),
        (["--device", "cpu,cuda:77"], "--device: expected a CUDA device that torch can use, got cuda:77"),
        (["--device", "cpu,toaster"], "--device: expected auto, cpu, cuda, cuda:N or mps, got toaster"),
        (["--devices", "cpu,"], "--device: expected auto, cpu, cuda, cuda:N or mps, got "),
    ],
)
def test_what_cannot_share_views(options, message, tmp_path, capsys):
    assert main(["generate", "x", "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
