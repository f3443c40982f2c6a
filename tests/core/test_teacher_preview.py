"""What a teacher draws is what diffusers draws; recognition and cost are what independent counts say."""

from __future__ import annotations

import re

import pytest
import torch

from dreamer_core.cli import main
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.cost import Cost, evaluations_per_step, measure
from dreamer_core.optimize.profiles import fitted
from dreamer_core.prompts import PromptConfig, ViewPrompts, encode_prompts
from dreamer_core.setting_values import changed
from dreamer_core.teacher_preview import (
    DIRECTIONS,
    Recognition,
    SamplingConfig,
    draw,
    duration,
    findings,
    recognise,
    sampling_levels,
    summary,
)
from dreamer_core.teachers.kinds import TeacherKind
from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
from dreamer_core.teachers.teacher import Conditioning, PlainTeacher

SIGMAS = scaled_linear_sigmas()
ORDINARY = fitted(PRESETS["starter"].config, TeacherKind(), ())[1]


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl_dir):
    from dreamer_core.teachers.sdxl.loading import load_sdxl

    return load_sdxl(tiny_sdxl_dir, keep_decoder=True)


@pytest.fixture(scope="module")
def prompts(sdxl):
    return encode_prompts(sdxl, PromptConfig("a red mug", negative="blurry"))


def test_levels_begin_at_the_teachers_highest_and_end_at_0():
    levels = sampling_levels(SIGMAS, 4)
    assert levels == [*(float(SIGMAS[t]) for t in (999, 749, 499, 249)), 0.0]
    few = torch.linspace(0.1, 14.6, 50, dtype=torch.float64)
    assert sampling_levels(few, 4)[0] == float(few[-1])
    assert len(sampling_levels(few, 1000)) == 51  # no level twice


def test_pictures_are_diffusers_own(sdxl, prompts):
    """DDIM of diffusers, on the same network, from the same noise."""
    from diffusers import DDIMScheduler

    done = []
    ours = draw(
        sdxl, prompts, resolution=64, sampling=SamplingConfig(5, 4.0), seed=3, on_step=lambda *at: done.append(at)
    )
    assert done == [(i, 5) for i in range(1, 6)]
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(5)
    words = {"front": prompts.front, "left": prompts.side, "back": prompts.back, "right": prompts.side}
    first = torch.Generator().manual_seed(3)
    noise = torch.randn(4, *ours.shape[1:], generator=first)
    size = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    for i, name in enumerate(DIRECTIONS):
        x = noise[i : i + 1] * float(SIGMAS[-1] / (1 + SIGMAS[-1] ** 2).sqrt())
        for t in scheduler.timesteps:
            with torch.no_grad():
                positive, negative = (
                    sdxl._unet(
                        x, t, encoder_hidden_states=c.tokens,
                        added_cond_kwargs={"text_embeds": c.pooled, "time_ids": size},
                    ).sample
                    for c in (words[name], prompts.negative)
                )  # fmt: skip
            x = scheduler.step(negative + 4.0 * (positive - negative), t, x).prev_sample
        torch.testing.assert_close(ours[i : i + 1], x, atol=1e-3, rtol=1e-3)


class Knows(PlainTeacher):
    """Predicts the noise exactly under the right words, and is off by `away` under others."""

    sigmas = SIGMAS

    def __init__(self, pictures, away, blind=()):
        self.pictures, self.away, self.blind = pictures, away, blind

    def eps(self, x, sigma, cond):
        n = len(self.pictures)
        said = cond.pooled.argmax(dim=1)
        truth = self.pictures.repeat(len(x) // n, 1, 1, 1)
        exact = (x - truth) / sigma[:, None, None, None].to(x)
        own = torch.tensor([0, 1, 2, 1]).repeat(len(x) // n)
        known = (said == own) | torch.isin(own, torch.tensor(self.blind, dtype=torch.long))
        return exact + torch.where(known, 0.0, self.away)[:, None, None, None]

    def encode(self, images):
        raise NotImplementedError


def one_hot_prompts():
    def words(i):
        return Conditioning(torch.zeros(1, 1, 2), torch.eye(3)[i : i + 1])

    return ViewPrompts(words(0), words(1), words(2), None, words(0), words(0))


def test_a_teacher_that_knows_its_directions():
    pictures = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = recognise(Knows(pictures, 0.5), one_hot_prompts(), pictures)
    assert found.found == {"front": "front", "left": "side", "back": "back", "right": "side"}
    assert found.confused == []
    torch.testing.assert_close(found.errors[0], torch.tensor([0.0, 0.25, 0.25]).double(), atol=1e-6, rtol=1e-4)


def test_confusion_is_named():
    errors = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 1.0], [3.0, 1.0, 3.0]])
    found = Recognition(errors)
    assert found.confused == ["left"]
    assert found.margins == {"front": 1.0, "left": -0.5, "back": 1.0, "right": 2.0}
    cost = Cost(steps=10, evaluations=1234, seconds=3 * 3600 + 120, peak=2 << 30, gaussians=5, most_gaussians=9)
    text = findings(ORDINARY, found, cost, 4 << 30)
    assert "left: fits the words for front better than its own" in text
    assert "front +100%, left -50%" in text
    assert "about 3 h 2 min" in text
    assert "2.0 GiB of 4.0 GiB free before" in text
    assert "5, 9 at the most" in text
    assert (
        summary(ORDINARY, found, cost) == "takes its left for front · about 3 h 2 min · 1,234 evaluations · 5 Gaussians"
    )
    assert summary(ORDINARY, Recognition(errors[[0, 3, 2, 3]]), cost).startswith("tells its sides apart · about 3 h")
    assert [duration(s) for s in (20.4, 100, 3600)] == ["20 s", "2 min", "1 h 0 min"]


@pytest.mark.parametrize("method", ["tsm", "ism", "sds", "csd", "sdi", "asd"])
def test_evaluations_are_those_of_a_real_run(sdxl, prompts, method):
    """Counted by the reports of every step of a short run."""
    given = {"guidance.method": method, "steps": 12, "schedule_steps": 12, "views": 1, "resolution": 64}
    config = changed(PRESETS["paper"].config, {**given, "guidance.warmup_steps": 0})
    state = OptimizationState.create(small(), config.learning_rates)
    made = [r.network_evaluations for r in optimize(state, sdxl, prompts, config, "numba")]
    estimate = evaluations_per_step(config, prompts)
    assert estimate == pytest.approx(sum(made) / len(made), rel=0.35 if method in ("tsm", "ism", "sdi") else 1e-9)


def small() -> Gaussians:
    return initial_shape("sphere", 40, torch.Generator().manual_seed(0))


def test_cost_grows_with_what_is_asked_for(sdxl, prompts):
    given = {"steps": 40, "views": 1, "resolution": 64, "density.enabled": True, "density.max_gaussians": 77}
    config = changed(PRESETS["paper"].config, given)
    start = small()
    before = start.means.clone()
    cost = measure(sdxl, prompts, config, start, "numba")
    assert torch.equal(start.means, before)  # the steps are thrown away
    assert (cost.steps, cost.gaussians, cost.most_gaussians) == (40, 40, 77)
    assert cost.evaluations == round(40 * evaluations_per_step(config, prompts))
    assert cost.seconds > 0
    twice = measure(sdxl, prompts, changed(config, {"views": 2, "density.enabled": False}), start, "numba")
    assert twice.evaluations == pytest.approx(2 * cost.evaluations, abs=1)
    assert twice.most_gaussians == 40


def test_command(tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    few = ["--views", "1", "--resolution", "64", "--steps", "3", "--count", "30", "--sampling-steps", "2"]
    assert main(["preview", "a red mug", "--model", str(tiny_sdxl_dir), "--preset", "paper", *few]) == 0
    out, err = capsys.readouterr()
    assert Image.open(tmp_path / "outputs" / "a-red-mug-preview.png").size == (256, 64)
    assert re.search(r"^Network evaluations: \d+ in 3 steps$", out, re.M)
    assert "Drawing 2/2" in err
    assert [p.name for p in (tmp_path / "outputs").iterdir()] == ["a-red-mug-preview.png"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["preview"], "PROMPT: expected what to make"),
        (
            ["preview", "x", "--sampling-steps", "-1"],
            "--sampling-steps: expected a whole number from 0 to 1000, got -1",
        ),
        (["preview", "x", "--sampling-cfg", "-1"], "--sampling-cfg: expected a number from 0 to 100, got -1.0"),
        (["preview", "x", "--out", "x.jpg"], "--out: expected a name that ends in .png, got x.jpg"),
        (["preview", "x", "--model", "nowhere"], "--model: expected a file or folder that exists, got nowhere"),
    ],
)
def test_bad_input(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
