"""Joint distillation: some steps look at a whole group of views, fading over the schedule, and groups stay whole."""

from dataclasses import replace

import pytest
import torch

from dreamer_core.cli import main
from dreamer_core.editing.config import edit_config
from dreamer_core.editing.work import Work
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, cost, optimize
from dreamer_core.optimize.views import draw_group, draws_group, views_at_most
from dreamer_core.prompts import PromptConfig, ViewPrompts
from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
from dreamer_core.teachers.teacher import Conditioning, PlainTeacher

pytestmark = pytest.mark.usefixtures("single_threaded")

AZIMUTHS = torch.tensor([0.0, 120.0, 240.0])


class Recorder(PlainTeacher):
    """Says nothing to the point, and remembers how many pictures it was asked about, and by whom."""

    sigmas = scaled_linear_sigmas()

    def __init__(self, azimuths=AZIMUTHS, asked=None, group=False):
        self.azimuths, self.asked, self.group = azimuths, [] if asked is None else asked, group

    def grouped(self, azimuths):
        assert torch.equal(azimuths, self.azimuths)
        return type(self)(self.azimuths, self.asked, group=True)

    def eps(self, x, sigma, cond):
        self.asked.append((self.group, len(x), x))
        return 0.1 * x + 0.2

    def encode(self, images):
        pooled = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2), 8)
        return torch.cat([pooled, pooled[:, :1]], dim=1) * 2 - 1


def prompts():
    one = Conditioning(torch.zeros(1, 2, 4))
    return ViewPrompts(one, one, one, None, one, one, blending=PromptConfig("a mug"))


def config(**changes):
    base = PRESETS["starter"].config
    return replace(base, steps=6, views=2, resolution=64, schedule_steps=6, **changes)


def run(teacher, settings):
    start = initial_shape("sphere", 60, torch.Generator().manual_seed(0))
    state = OptimizationState.create(start, settings.learning_rates)
    return list(optimize(state, teacher, prompts(), settings, "torch")), state


def test_a_share_of_the_steps_asks_about_whole_groups():
    teacher = Recorder()
    reports, _ = run(teacher, config(multiview_share=(0.5, 0.5)))
    groups = [r.group for r in reports]
    assert 0 < sum(groups) < 6
    assert {group for group, _, _ in teacher.asked} == {True, False}
    for group, count, _ in teacher.asked:
        assert count % (3 if group else 2) == 0
    assert all(r.t > 0 and r.nonfinite == 0 for r in reports)


def test_without_an_adapter_the_run_is_as_before():
    with_share, without = config(multiview_share=(1.0, 1.0)), config()
    reports, state = run(Recorder(azimuths=None), with_share)
    expected, other = run(Recorder(azimuths=None), without)
    assert not any(r.group for r in reports)
    assert torch.equal(state.params["means"], other.params["means"])
    assert [r.t for r in reports] == [r.t for r in expected]
    reports, other = run(Recorder(), config())
    assert not any(r.group for r in reports)
    assert torch.equal(state.params["means"], other.params["means"])


def test_the_share_fades_and_follows_from_the_seed():
    settings = replace(config(multiview_share=(0.8, 0.1)), schedule_steps=2000)
    drawn = torch.tensor([draws_group(settings, step) for step in range(2000)]).float()
    assert drawn[:300].mean() == pytest.approx(0.8 - 0.7 * 150 / 2000, abs=0.08)
    assert drawn[-300:].mean() == pytest.approx(0.1 + 0.7 * 150 / 2000, abs=0.08)
    assert not torch.equal(
        drawn, torch.tensor([draws_group(replace(settings, seed=1), i) for i in range(2000)]).float()
    )


def test_the_group_is_seen_by_the_adapters_cameras_on_grey():
    drawn = draw_group(config(multiview_half_width=2.0), AZIMUTHS, torch.device("cpu"))
    assert drawn.cameras.orthographic
    assert torch.equal(drawn.shown.azimuth, torch.tensor([0.0, 120.0, -120.0]))
    assert torch.equal(drawn.cameras.Ks[:, 0, 0], torch.full((3,), 64 / 4.0))
    assert (drawn.backgrounds == 0.5).all()
    assert drawn.depth is drawn.flip is False


class Short(Recorder):
    """Has memory for one picture in the encoder, and for all in the network."""

    def encode(self, images):
        if len(images) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return super().encode(images)


def test_the_incoming_splat_of_an_edit_is_encoded_as_memory_allows():
    """Groups are guided whole; their pictures, of the splat as it is and as it was, are encoded one at a time."""
    teacher, given = Short(), {"resolution": 64, "steps": 2, "multiview_share": (1.0, 1.0)}
    settings = edit_config(PRESETS["starter"], "edit", given)
    work = Work.of(initial_shape("sphere", 60, torch.Generator().manual_seed(0)), settings.edit, source=prompts())
    for low in (False, True):
        state = OptimizationState.create(work.changing, settings.learning_rates)
        chosen = replace(settings, recompute_encoder=low)
        reports = list(optimize(state, teacher, prompts(), chosen, "torch", work.original))
        assert all(r.group and r.at_once == (None if low else 1) for r in reports)
    assert {count % 6 for group, count, _ in teacher.asked if group} == {0}  # both splats' groups of three


def test_when_memory_runs_out_groups_stay_whole():
    teacher = Short()
    reports, _ = run(teacher, config(multiview_share=(1.0, 1.0)))
    assert all(r.group and r.at_once == 1 for r in reports)
    assert {count % 3 for group, count, _ in teacher.asked if group} == {0}


def test_the_cost_of_a_run_counts_the_views_of_groups(monkeypatch):
    """A view takes a second of guidance and one of all else, whichever steps happen to be timed."""
    start = initial_shape("sphere", 60, torch.Generator().manual_seed(0))
    real = cost.optimize

    def timed(*args):
        for report in real(*args):
            views = 3 if report.group else 2
            yield replace(report, seconds={"guidance": views * report.network_evaluations, "render": float(views)})

    monkeypatch.setattr(cost, "optimize", timed)
    for seed in range(3):
        settings = config(multiview_share=(0.5, 0.5), seed=seed)
        plain = cost.measure(Recorder(azimuths=None), prompts(), settings, start, "torch")
        joint = cost.measure(Recorder(), prompts(), settings, start, "torch")
        assert joint.evaluations == pytest.approx(2.5 / 2 * plain.evaluations, abs=1)
        assert joint.seconds == pytest.approx(2.5 / 2 * plain.seconds)
        assert plain.seconds == pytest.approx(plain.evaluations + 6 * 2, abs=1)


def test_memory_is_planned_for_the_largest_step():
    settings = config(multiview_share=(0.0, 0.5))
    assert views_at_most(settings, torch.zeros(6)) == 6
    assert views_at_most(settings, None) == 2
    assert views_at_most(config(), torch.zeros(6)) == 2
    assert views_at_most(replace(settings, views=8), torch.zeros(6)) == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--multiview", "none.safetensors"],
            "--multiview: expected a multiview_share above 0, got 0; choose the preset",
        ),
        (["--set", "multiview_share=0.5,0.1"], "multiview_share: expected --multiview FILE beside it, got none"),
        (
            ["--multiview", "none.safetensors", "--preset", "multiview"],
            "none.safetensors, which does not exist; get mvad",
        ),
    ],
)
def test_settings_without_effect_are_refused(options, said, tmp_path, capsys):
    assert main(["generate", "a mug", *options, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--multiview", "none.safetensors", "--preset", "paper"], "--multiview: expected a multiview_share above 0"),
        (["--set", "multiview_share=0.5,0.1"], "multiview_share: expected --multiview FILE beside it, got none"),
    ],
)
def test_restyle_refuses_them_too(options, said, tmp_path, capsys):
    assert main(["restyle", str(tmp_path / "scan.ply"), "a mug", *options, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
