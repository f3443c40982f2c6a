"""--init, --init-* and --shap-e of `generate`: what they start from, and what they refuse."""

import argparse
import json
from dataclasses import replace

import pytest
import torch
import trimesh
from tiny_shap_e import save_tiny_shap_e

from dreamer_core.cli import main
from dreamer_core.cli.initial import add_init_options, start
from dreamer_core.cli.session import Session
from dreamer_core.errors import InputError
from dreamer_core.formats import read_ply, write_ply
from dreamer_core.initializers import from_points, shap_e
from dreamer_core.optimize import PRESETS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_shap_e(tmp_path_factory.mktemp("shap-e") / "box"))


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    monkeypatch.setattr(shap_e, "GRID", 24)


def arguments(*options):
    parser = argparse.ArgumentParser()
    add_init_options(parser)
    return argparse.Namespace(**vars(parser.parse_args(options)), prompt="a red mug", multiview=None)


def begin(*options, resume=False):
    return start(arguments(*options), 0, replace(PRESETS["official"], count=300), CPU, resume)


def test_shapes_take_size_and_opacity():
    gaussians, settings = begin()
    assert len(gaussians) == 300
    assert float(gaussians.means.norm(dim=-1).max()) == pytest.approx(0.6, abs=0.02)
    assert settings["init"] == "sphere"
    box, _ = begin("--init", "box", "--count", "50", "--init-size", "0.3", "--init-opacity", "0.5")
    assert len(box) == 50
    assert 0.2 < float(box.means.abs().max()) <= 0.3
    torch.testing.assert_close(box.opacities, torch.full((50,), 0.5))


def test_a_mesh_takes_every_option(tmp_path):
    """A plate that stands across X in the file, up +x, seen from the side."""
    trimesh.creation.box(extents=(4, 1, 0.2)).export(tmp_path / "plate.obj")
    plain, first = begin("--init", str(tmp_path / "plate.obj"))
    assert len(plain) == 300
    assert plain.means.std(0).argmax() == 0
    turned, second = begin(
        "--init", str(tmp_path / "plate.obj"), "--init-up", "+x", "--init-yaw", "90", "--init-size", "0.4",
        "--init-opacity", "0.2", "--count", "100",
    )  # fmt: skip
    spread = turned.means.std(0)
    assert spread[1] > spread[2] > spread[0]  # 4 along Y, 1 along Z, 0.2 along X
    assert len(turned) == 100
    assert float(turned.means.norm(dim=-1).median()) < 0.4
    torch.testing.assert_close(turned.opacities, torch.full((100,), 0.2))
    assert first["init_sha256"] != second["init_sha256"]
    assert begin("--init", str(tmp_path / "plate.obj"))[1] == first


def test_a_splat_stays_as_it_is_or_is_cut_and_fitted(tmp_path):
    splat = from_points(torch.rand(80, 3, generator=torch.Generator().manual_seed(0)) * 5)
    write_ply(splat, tmp_path / "s.ply")
    file = str(tmp_path / "s.ply")
    torch.testing.assert_close(begin("--init", file)[0].means, splat.means)
    cut, settings = begin("--init", file, "--count", "30", "--init-size", "0.5")
    assert settings["count"] == len(cut) == 30
    assert float(cut.means.norm(dim=-1).sort().values[28]) <= 0.5 + 1e-5
    with pytest.raises(InputError, match="--init-opacity: expected none beside a splat"):
        begin("--init", file, "--init-opacity", "0.3")


def test_shap_e_with_its_own_prompt(model, capsys):
    gaussians, settings = begin("--shap-e", model, "--shap-e-steps", "2", "--shap-e-prompt", "a mug")
    assert len(gaussians) == 300
    assert settings["init"] == "shap-e"
    assert settings["shap_e"]["prompt"] == "a mug"
    assert settings["shap_e"]["guidance_scale"] == 15.0
    assert f"Making the initial shape with {model}" in capsys.readouterr().err
    again, same = begin("--shap-e", model, "--shap-e-steps", "2", "--shap-e-prompt", "a mug", resume=True)
    assert again is None  # the run that goes on has its Gaussians
    assert same == settings
    assert begin("--shap-e", model, resume=True)[1]["shap_e"]["prompt"] == "a red mug"


def test_generate_from_shap_e_and_resume(model, tiny_sdxl_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "make_pictures", lambda self, interrupt: None)  # they take far longer than the run
    argv = ["generate", "a red mug", "--model", str(tiny_sdxl_dir), "--preset", "starter", "--resolution", "64"]
    argv += ["--views", "1", "--count", "60", "--shap-e", model, "--shap-e-steps", "2", "--out", str(tmp_path)]
    assert main([*argv, "--steps", "1"]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["shap_e"]["steps"] == 2
    assert len(read_ply(tmp_path / "splat.ply")) > 0
    assert main([*argv, "--steps", "2", "--resume"]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["steps_made"] == 2
    assert main([*argv, "--steps", "2", "--resume", "--shap-e-cfg", "3"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--init-up", "+z"], "--init-up: expected a file or Shap-E to turn"),
        (["--init", "ball", "--init-yaw", "9"], "--init-yaw: expected a file or Shap-E to turn"),
        (["--init-size", "0"], "--init-size: expected a length above 0, got 0.0"),
        (["--init-opacity", "1"], "--init-opacity: expected a number above 0 and below 1"),
        (["--count", "2"], "--count: expected at least 4"),
        (["--init", "gone.glb"], "--init: expected a file, got gone.glb, which does not exist"),
        (["--init", "a.jpg"], "--init: expected one of sphere, box, ball, views or a file (.ply"),
        (["--shap-e-prompt", "a mug"], "--shap-e-prompt: expected --shap-e beside it"),
        (["--shap-e", "x/y", "--init", "box"], "--shap-e: expected no --init beside it, got box"),
        (["--shap-e", "x/y", "--shap-e-steps", "1"], "--shap-e-steps: expected 2 to 1024"),
        (["--shap-e", "x/y", "--shap-e-prompt", ""], "--shap-e-prompt: expected a few words"),
        (["--shap-e", "gone"], "--shap-e: expected a diffusers folder or a hub id, got gone"),
    ],
)
def test_refused(options, message):
    with pytest.raises(InputError) as caught:
        begin(*options)
    assert message in str(caught.value)


def test_yaw_must_be_finite(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.glb")
    with pytest.raises(InputError, match="--init-yaw: expected an angle in degrees, got nan"):
        begin("--init", str(tmp_path / "box.glb"), "--init-yaw", "nan")
