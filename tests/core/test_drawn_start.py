"""`--init views`: a run that begins with what the teacher's multi-view adapter draws."""

import json

import pytest
import torch

from dreamer_core.cli import main
from dreamer_core.cli.session import Session
from dreamer_core.formats import read_ply
from dreamer_core.initializers.drawn_views import DrawnViewsConfig, draw_views
from dreamer_core.teachers.multiview.files import adapter_for, attention_of, save_adapter
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.sdxl.predictor import DiffusersSDXL

pytestmark = pytest.mark.usefixtures("single_threaded")


@pytest.fixture(scope="module")
def adapter(tiny_sdxl_dir, tmp_path_factory):
    unet = load_sdxl(tiny_sdxl_dir)._unet
    path = tmp_path_factory.mktemp("adapter") / "tiny.safetensors"
    save_adapter(adapter_for(attention_of(unet), tuple(unet.config.block_out_channels)), path)
    return path


@pytest.fixture
def ball(monkeypatch):
    """What is decoded is a red disc on grey, whatever a network of random weights has drawn; the decoded latents."""
    decoded = []

    def decode(self, latents):
        decoded.append(latents)
        axis = torch.linspace(-1, 1, 64)
        there = (axis[:, None] ** 2 + axis**2 < 0.3)[..., None]
        return torch.where(there, torch.tensor([0.8, 0.1, 0.1]), torch.tensor(0.5)).expand(len(latents), -1, -1, -1)

    monkeypatch.setattr(DiffusersSDXL, "decode", decode)
    monkeypatch.setattr(Session, "make_pictures", lambda self, interrupt: None)  # they take far longer than the run
    return decoded


def argv(tiny, adapter, out, *more):
    start = ["--init", "views", "--multiview", str(adapter), "--init-sampling-steps", "2", "--init-fit-steps", "3"]
    small = ["--preset", "starter", "--resolution", "64", "--views", "1", "--count", "80"]
    return ["generate", "a red mug", "--model", str(tiny), *small, *start, "--out", str(out), *more]


def test_a_run_begins_with_what_is_drawn_and_goes_on_without_drawing(tiny_sdxl_dir, adapter, ball, tmp_path):
    assert main(argv(tiny_sdxl_dir, adapter, tmp_path, "--steps", "1")) == 0
    assert [tuple(z.shape) for z in ball] == [(1, 4, 8, 8)] * 6
    assert not torch.equal(ball[0], ball[1])
    log = json.loads((tmp_path / "run.json").read_text())
    assert (log["init"], log["count"]) == ("views", 80)
    assert log["views"] == {"sampling_steps": 2, "sampling_cfg": 3.0, "fit_steps": 3}
    assert (tmp_path / "drawn.png").stat().st_size > 100
    made = read_ply(tmp_path / "splat.ply")
    assert len(made) > 0
    red = made.rgb.mean(0)
    assert red[0] > 0.5 > red[1]
    assert main(argv(tiny_sdxl_dir, adapter, tmp_path, "--steps", "2", "--resume")) == 0
    assert len(ball) == 6
    assert json.loads((tmp_path / "run.json").read_text())["steps_made"] == 2
    assert main(argv(tiny_sdxl_dir, adapter, tmp_path, "--steps", "3", "--resume", "--init-sampling-cfg", "5")) == 2


def test_every_trial_draws_its_own(tiny_sdxl_dir, adapter, ball, tmp_path):
    more = ("--steps", "2", "--best-of", "2", "--trial-steps", "1")
    assert main(argv(tiny_sdxl_dir, adapter, tmp_path, *more)) == 0
    assert len(ball) == 12
    assert not torch.equal(ball[0], ball[6])
    assert [p.name for p in tmp_path.glob("drawn*")] == ["drawn.png"]
    assert json.loads((tmp_path / "run.json").read_text())["steps_made"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--init", "views"], "--init: expected --multiview FILE beside it: its views are the start, got views"),
        (["--init", "box", "--init-fit-steps", "9"], "--init-fit-steps: expected --init views beside it, got box"),
        (["--init", "views", "--init-sampling-steps", "0"], "--init-sampling-steps: expected a whole number from 1"),
        (["--init", "views", "--multiview", "FILE", "--count", "2"], "--count: expected at least 4 Gaussians, got 2"),
        (["--init", "views", "--multiview", "FILE", "--init-size", "1"], "--init-size: expected none beside --init vi"),
    ],
)
def test_refused(options, said, adapter, tmp_path, capsys):
    options = [str(adapter) if option == "FILE" else option for option in options]
    assert main(["generate", "a mug", *options, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_of_nothing_are_told_with_what_may_help(tiny_sdxl_dir, adapter, ball, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(DiffusersSDXL, "decode", lambda self, latents: torch.full((len(latents), 64, 64, 3), 0.5))
    assert main(argv(tiny_sdxl_dir, adapter, tmp_path, "--steps", "1")) == 2
    said = capsys.readouterr().err
    assert "--init: expected an object on an even background, got nothing in picture 1" in said
    assert "another --seed" in said
    assert (tmp_path / "drawn.png").is_file()


def test_a_drawing_of_somebody_else_stays(tiny_sdxl_dir, adapter, ball, tmp_path, capsys):
    (tmp_path / "drawn.png").write_text("mine")
    assert main(argv(tiny_sdxl_dir, adapter, tmp_path, "--steps", "1")) == 2
    assert "--out: expected a folder without files that a run would replace" in capsys.readouterr().err
    assert (tmp_path / "drawn.png").read_text() == "mine"


def test_a_plain_teacher_draws_none(tiny_sdxl_dir):
    with pytest.raises(ValueError, match="without a multi-view adapter"):
        draw_views(load_sdxl(tiny_sdxl_dir), None, resolution=64, config=DrawnViewsConfig())
