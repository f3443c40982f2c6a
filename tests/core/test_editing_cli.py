"""`restyle` and `edit`: files, what stays, resuming, messages."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dreamer_core.cli import main, session
from dreamer_core.formats import read_ply, write_ply
from dreamer_core.initializers import initial_shape

SMALL = ["--preset", "starter", "--views", "1", "--resolution", "64"]
OFFSET = torch.tensor([1000.0, -50.0, 7.0])


@pytest.fixture(scope="module")
def splat(tmp_path_factory):
    """150 Gaussians of a ball with radius 60, far from the origin."""
    path = tmp_path_factory.mktemp("splat") / "ball.ply"
    g = initial_shape("sphere", 150, torch.Generator().manual_seed(0), opacity=0.6)
    moved = {"means": g.means * 100 + OFFSET, "log_scales": g.log_scales + torch.tensor(100.0).log()}
    write_ply(type(g)(**{**dict(g.tensors()), **moved}), path)
    return path


def command(kind, splat, model, out, *options, steps=3):
    words = ["a gold ball"] if kind == "restyle" else ["--from", "a red ball", "--to", "a blue ball"]
    more = ["--model", str(model), "--steps", str(steps), "--out", str(out), *SMALL, *options]
    return main([kind, str(splat), *words, *more])


def equal(a, b):
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True))


def test_restyle_leaves_the_files_of_a_run_and_the_splats_place(splat, tiny_sdxl_dir, tmp_path, capsys):
    out = tmp_path / "gold"
    always = ["--set", "edit.sizes_from=0", "--set", "edit.positions_from=0"]
    assert command("restyle", splat, tiny_sdxl_dir, out, *always) == 0
    before, after = read_ply(splat), read_ply(out / "splat.ply")
    assert len(after) == 150
    assert not torch.equal(after.sh0, before.sh0)
    assert not torch.equal(after.means, before.means)
    assert (after.means - before.means).norm(dim=1).max() < 2  # of a ball with radius 60
    log = json.loads((out / "run.json").read_text())
    assert log["status"] == "complete"
    assert log["config"]["edit"]["strength"] == 0.6
    assert log["config"]["guidance"]["t_max"] == 599
    assert log["gaussians"] == 150
    picture = np.asarray(Image.open(out / "views.png"))
    assert (picture.min(axis=-1) < 200).mean() > 0.05  # it is in the picture, however far away it lies
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["off_silhouette"]) == 0
    found = re.search(r"The cameras go round \((.*), (.*), (.*)\), 1 unit of theirs is (.*)\.", capsys.readouterr().err)
    assert [float(n) for n in found.groups()] == pytest.approx([1000.0, -50.0, 7.0, 77.0], abs=5)


FAR_MASK = ["--mask", "MASK@0,0,2.8,35", "--around", "splat"]


@pytest.mark.parametrize("where", [["--region", "sphere:1000,10,7,50"], ["--mask", "MASK@0,0,210,35"], FAR_MASK])
def test_edit_changes_nothing_outside_of_a_region(splat, tiny_sdxl_dir, tmp_path, where, capsys):
    half = np.full((64, 64), 200, np.uint16)  # of 65535; the same in 8 bits is much
    half[:32] = 65535
    Image.fromarray(half).save(tmp_path / "mask.png")
    moved = where[0] == "--mask" and "--around" not in where
    if moved:  # cameras of masks go round the origin
        near = read_ply(splat)
        splat = tmp_path / "near.ply"
        write_ply(type(near)(**{**dict(near.tensors()), "means": near.means - OFFSET}), splat)
    where = [text.replace("MASK", str(tmp_path / "mask.png")) for text in where]
    assert command("edit", splat, tiny_sdxl_dir, tmp_path / "out", *where) == 0
    before, after = read_ply(splat), read_ply(tmp_path / "out" / "splat.ply")
    changed = (before.sh0 != after.sh0).flatten(1).any(dim=1)
    assert 5 < changed.sum() < 100
    assert equal(before[~changed], after[~changed])
    middle = 0.0 if moved else OFFSET[1]
    assert before.means[changed, 1].min() > middle - 6
    assert f"{int(changed.sum())} of 150 Gaussians may change" in capsys.readouterr().err


def test_an_interrupted_edit_goes_on_to_the_same_result(splat, tiny_sdxl_dir, tmp_path, capsys):
    region = ["--region", "sphere:1000,10,7,50", "--set", "schedule_steps=4"]
    assert command("edit", splat, tiny_sdxl_dir, tmp_path / "whole", *region, steps=4) == 0
    assert command("edit", splat, tiny_sdxl_dir, tmp_path / "part", *region, steps=2) == 0
    shutil.copytree(tmp_path / "part", tmp_path / "other")
    assert command("edit", splat, tiny_sdxl_dir, tmp_path / "part", *region, "--resume", steps=4) == 0
    assert (tmp_path / "whole" / "splat.ply").read_bytes() != b""
    assert equal(read_ply(tmp_path / "whole" / "splat.ply"), read_ply(tmp_path / "part" / "splat.ply"))
    capsys.readouterr()
    moved = ["--region", "sphere:1000,-110,7,50", *region[2:]]
    assert command("edit", splat, tiny_sdxl_dir, tmp_path / "other", *moved, "--resume", steps=4) == 2
    assert "may_change_sha256" in capsys.readouterr().err


def test_a_cancelled_edit_keeps_the_whole_splat(splat, tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    plain = session.Session.optimise

    def interrupted(self, teacher, prompts, interrupt):
        interrupt.requested = True
        plain(self, teacher, prompts, interrupt)

    monkeypatch.setattr(session.Session, "optimise", interrupted)
    assert command("edit", splat, tiny_sdxl_dir, tmp_path / "out", "--region", "sphere:1000,10,7,50") == 130
    assert len(read_ply(tmp_path / "out" / "splat.ply")) == 150
    assert json.loads((tmp_path / "out" / "run.json").read_text())["steps_made"] == 1


def test_strength_decides_the_timesteps_unless_they_are_given(splat, capsys):
    def shown(*options):
        assert main(["edit", str(splat), "--show", "--preset", "starter", *options]) == 0
        return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())

    assert shown("--strength", "0.25")["guidance.t_max"] == "250"
    assert shown("--set", "edit.strength=0.25")["guidance.t_max"] == "250"
    assert shown("--strength", "0.25", "--set", "guidance.t_max=400")["guidance.t_max"] == "400"
    found = shown()
    assert (found["cleanup.enabled"], found["density.enabled"], found["regularizers.tv_rgb"]) == (
        "False",
        "False",
        "0.0",
    )
    assert (found["guidance.method"], found["edit.harmonics"]) == ("sds", "keep")


def test_the_incoming_splat_is_not_replaced(splat, tiny_sdxl_dir, tmp_path, capsys):
    own = tmp_path / "run"
    own.mkdir()
    shutil.copy(splat, own / "splat.ply")
    before = (own / "splat.ply").read_bytes()
    assert command("edit", own / "splat.ply", tiny_sdxl_dir, own, "--overwrite") == 2
    assert "--out: expected another folder than FILE's" in capsys.readouterr().err
    assert (own / "splat.ply").read_bytes() == before


def test_a_short_run_is_extended_by_the_schedule_it_began_with(splat, tiny_sdxl_dir, tmp_path, capsys):
    out = tmp_path / "run"
    assert command("edit", splat, tiny_sdxl_dir, out, steps=2) == 0
    assert command("edit", splat, tiny_sdxl_dir, out, "--resume", steps=3) == 2
    assert "add --set schedule_steps=2, the length that its schedule began with" in capsys.readouterr().err
    assert command("edit", splat, tiny_sdxl_dir, out, "--resume", "--set", "schedule_steps=2", steps=3) == 0


def test_a_mask_without_numbers_is_seen_as_render_draws_it(splat, tmp_path):
    from dreamer_core.cli import build_parser, change

    drawn = build_parser().parse_args(["render", str(splat), "--out", "a.png"])
    assert (drawn.azimuth, drawn.elevation, drawn.radius) == change.CAMERA[:3]
    assert drawn.fov == pytest.approx(change.CAMERA[3], abs=0.1)


def test_render_around_a_splat_that_lies_elsewhere(splat, tmp_path):
    for around, seen in (("splat", True), ("origin", False)):
        out = tmp_path / f"{around}.png"
        assert main(["render", str(splat), "--out", str(out), "--resolution", "32", "--around", around]) == 0
        assert bool((np.asarray(Image.open(out).convert("RGB")).min(axis=-1) < 200).any()) == seen


BROKEN = {
    "--to: expected what the splat should be": ["edit", "FILE", "--from", "a"],
    "--from: expected what the splat is": ["edit", "FILE", "--to", "a"],
    "PROMPT: expected what the splat should be": ["restyle", "FILE"],
    "--region: expected box:": ["restyle", "FILE", "a", "--region", "cube:1"],
    "--region: expected at least one Gaussian in it": ["restyle", "FILE", "a", "--region", "sphere:0,0,0,1"],
    "--outside: expected --region or --mask": ["restyle", "FILE", "a", "--outside"],
    "--behind: expected --mask": ["restyle", "FILE", "a", "--behind"],
    "--mask: expected a picture": ["restyle", "FILE", "a", "--mask", "missing.png"],
    "--mask: expected DISTANCE from 0.01": ["restyle", "FILE", "a", "--mask", "missing.png@0,0,-3.5"],
    "--mask: expected FOV from 1 to 150": ["restyle", "FILE", "a", "--mask", "missing.png@0,0,3,400"],
    "--around: expected --mask": ["restyle", "FILE", "a", "--around", "splat"],
    "--from: expected a description": ["edit", "FILE", "--from", " ", "--to", "a"],
    "--to: expected a description": ["edit", "FILE", "--from", "a", "--to", ""],
    "--set edit.patches: expected a setting that has an effect": [
        "edit",
        "FILE",
        "--from",
        "a",
        "--to",
        "b",
        "--set",
        "edit.patches=3",
    ],
    "--set edit.depth: expected a setting that has an effect": [
        *("restyle", "FILE", "a", "--set", "edit.position_rate=0", "--set", "edit.depth=2"),
    ],
    "--harmonics: expected a setting that has an effect": [
        *("restyle", "FILE", "a", "--strength", "0", "--harmonics", "flatten"),
    ],
    "--region: expected a whole number of Gaussians": ["restyle", "FILE", "a", "--region", "points:0,0,0,2.5"],
    "--mask: expected FILE.png": ["restyle", "FILE", "a", "--mask", "missing.png@x"],
    "--strength: expected a number from 0 to 1": ["restyle", "FILE", "a", "--strength", "1.5"],
    "--focus: expected a region": ["restyle", "FILE", "a", "--focus", "region"],
    "cleanup.enabled: expected false": ["restyle", "FILE", "a", "--set", "cleanup.enabled=true"],
    "FILE: expected a .ply file": ["restyle", "missing.ply", "a"],
}


@pytest.mark.parametrize("message", BROKEN)
def test_bad_input_is_one_line(message, splat, tmp_path, tiny_sdxl_dir, capsys):
    argv = [str(splat) if word == "FILE" else word for word in BROKEN[message]]
    out = tmp_path / "out"
    assert main([*argv, "--out", str(out), "--model", str(tiny_sdxl_dir)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not out.exists()
