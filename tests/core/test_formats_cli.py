"""render, info and convert on every splat format."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dreamer_core.cameras import turntable
from dreamer_core.cli import main, session
from dreamer_core.cli.run_folder import RunFolder
from dreamer_core.formats import READABLE, WRITABLE, load_gaussians, read_metadata, save_gaussians, write_ply
from dreamer_core.gaussians import Gaussians, rgb_to_sh
from dreamer_core.initializers import initial_shape


@pytest.fixture(scope="module")
def splats(tmp_path_factory):
    """One red ball in every format, with metadata."""
    folder = tmp_path_factory.mktemp("splats")
    g = torch.Generator().manual_seed(0)
    n = 60
    ball = Gaussians(
        0.3 * torch.randn(n, 3, generator=g),
        torch.randn(n, 4, generator=g),
        torch.full((n, 3), -2.0) - torch.rand(n, 3, generator=g),
        torch.full((n,), 2.0),
        rgb_to_sh(torch.tensor([0.9, 0.1, 0.1])).expand(n, 1, 3).clone(),
        0.05 * torch.randn(n, 3, 3, generator=g),
    )
    for suffix in WRITABLE:
        save_gaussians(ball, folder / f"ball{suffix}", metadata={"prompt": "a red ball", "seed": 7})
    return folder


NAMES = {
    ".ply": "PLY, 3DGS",
    ".compact.ply": "PLY, 3DGS",
    ".compressed.ply": "PLY, compressed",
    ".splat": "splat (",
    ".spz": "SPZ (",
}


@pytest.mark.parametrize("suffix", WRITABLE)
def test_info(splats, suffix, capsys):
    assert main(["info", str(splats / f"ball{suffix}")]) == 0
    out = capsys.readouterr().out
    lines = {line[2:18].strip(): line[19:] for line in out.splitlines()[1:]}
    assert lines["format"].startswith(NAMES[suffix])
    assert f"{(splats / f'ball{suffix}').stat().st_size:,} bytes" in lines["format"]
    assert lines["Gaussians"] == "60"
    assert lines["SH degree"] == ("0" if suffix == ".splat" else "1")
    assert lines["bounds"].startswith("X -")
    assert lines["prompt"] == "a red ball"
    assert lines["seed"] == "7"


@pytest.mark.parametrize("suffix", WRITABLE)
def test_render_shows_the_same(splats, suffix, tmp_path, capsys):
    def picture(kind):
        out = tmp_path / f"{kind}.png"
        assert main(["render", str(splats / f"ball{kind}"), "--out", str(out), "--resolution", "64"]) == 0
        return np.asarray(Image.open(out)).astype(float)

    exact, this = picture(".ply"), picture(suffix)
    assert (exact[32, 32] - exact[0, 0])[1] < -100  # red before white
    assert np.abs(exact - this).mean() < 2  # of 255


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_render_makes_animations(splats, suffix, tmp_path, capsys):
    out = tmp_path / f"turn{suffix}"
    argv = ["render", str(splats / "ball.spz"), "--out", str(out), "--resolution", "33", "--views", "4", "--fps", "4"]
    assert main(argv) == 0
    film = Image.open(out)
    assert film.size == (33, 33)
    assert film.n_frames == 4
    assert capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize(
    ("suffix", "told"),
    [
        (".compressed.ply", "10 of 60 Gaussians, nearly transparent, are left out"),
        (".spz", "colours of 1 Gaussians are cut off at"),
        (".splat", "colours of 1 Gaussians are cut off at"),
        (".ply", ""),
    ],
)
def test_convert_says_what_a_format_cannot_hold(suffix, told, tmp_path, capsys):
    ball = initial_shape("sphere", 60, torch.Generator().manual_seed(0))
    sh0, opacities = ball.sh0.clone(), ball.logit_opacities.clone()
    if suffix == ".compressed.ply":
        opacities[:10] = -9.0
    else:
        sh0[0, 0, 1] = 9.0
    write_ply(replace(ball, sh0=sh0, logit_opacities=opacities), tmp_path / "a.ply")
    assert main(["convert", str(tmp_path / "a.ply"), str(tmp_path / f"b{suffix}")]) == 0
    said = capsys.readouterr().err
    assert told in said if told else said == ""


@pytest.mark.parametrize("suffix", WRITABLE)
def test_convert(splats, suffix, tmp_path, capsys):
    out = tmp_path / f"b{suffix}"
    assert main(["convert", str(splats / "ball.ply"), str(out)]) == 0
    assert len(load_gaussians(out)) == 60
    assert read_metadata(out) == {"prompt": "a red ball", "seed": 7, "generator": "Dreamer XL"}
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert ("degree 1 are kept to degree 0" in said.err) == (suffix == ".splat")
    back = tmp_path / "back.ply"
    assert main(["convert", str(out), str(back)]) == 0
    before, after = load_gaussians(out), load_gaussians(back)
    assert torch.equal(before.means, after.means)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["convert", "ball.ply", "b.obj"],
            "OUT: expected a name that ends in .ply, .compact.ply, .compressed.ply, .splat, .spz",
        ),
        (["convert", "gone.spz", "b.ply"], "IN: expected an .spz file, got gone.spz, which does not exist"),
        (["convert", "ball.obj", "b.ply"], "IN: expected a splat file (.ply, .splat, .spz), got ball.obj"),
        (["info", "ball.obj"], "FILE: expected a splat file"),
        (["render", "ball.ply", "--out", "b.gif", "--fps", "60"], "--fps: expected at most 50"),
        (["render", "ball.ply", "--out", "b.mp4", "--resolution", "65"], "--resolution: expected an even number"),
    ],
)
def test_bad_input_is_one_line(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"{argv[0]}: error: {message}")
    assert "\n" not in err
    assert not list(tmp_path.iterdir())


def test_help_names_every_format(capsys):
    for command in ("render", "info", "convert"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(suffix in out for suffix in READABLE)


def test_generate_exports_and_records(tiny_sdxl_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(session, "turntable", lambda views, size, **rest: turntable(min(views, 3), 32, **rest))
    out = tmp_path / "mug"
    argv = ["generate", "a red mug", "--model", str(tiny_sdxl_dir), "--preset", "starter", "--steps", "1"]
    argv += ["--views", "1", "--resolution", "64", "--count", "40", "--seed", "5", "--out", str(out)]
    assert main([*argv, "--export", "spz,splat", "--export", ".GIF,spz"]) == 0
    names = {p.name for p in out.iterdir()}
    assert {"splat.ply", "splat.spz", "splat.splat", "splat.json", "turntable.mp4", "turntable.gif"} <= names
    assert not {"splat.compressed.ply", "turntable.webp"} & names
    printed = capsys.readouterr().out.split()
    assert all(str(out / name) in printed for name in ("splat.ply", "splat.spz", "turntable.gif"))
    assert Image.open(out / "turntable.gif").n_frames == 3
    (out / "splat.json").rename(out / "kept.json")
    inside = read_metadata(out / "splat.ply")
    (out / "kept.json").rename(out / "splat.json")
    assert inside == read_metadata(out / "splat.spz")
    assert (inside["prompt"], inside["seed"], inside["steps"]) == ("a red mug", 5, 1)
    assert inside["settings"]["resolution"] == 64
    assert str(tmp_path) not in str(inside)  # names of files, not where they lie
    assert len(load_gaussians(out / "splat.spz")) == len(load_gaussians(out / "splat.ply"))
    RunFolder(out).remove_pictures()  # as the next run does: they would pass for its own
    assert not {"splat.spz", "splat.splat", "splat.json", "turntable.gif"} & {p.name for p in out.iterdir()}


@pytest.mark.parametrize(("value", "got"), [("ksplat", "ksplat"), ("spz,", "nothing"), ("ply", "ply")])
def test_unknown_exports_are_refused(value, got, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a mug", "--export", value]) == 2
    kinds = "compact.ply, compressed.ply, splat, spz, webp, gif"
    assert f"--export: expected one or more of {kinds}, with commas, got {got}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
