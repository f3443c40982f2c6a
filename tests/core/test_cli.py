"""The command line, in process where possible: files, exit codes, messages."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dreamer_core.cli import main, session
from dreamer_core.cli.generate import Lora
from dreamer_core.formats import read_ply
from dreamer_core.optimize import PRESETS, LearningRates, load_state
from dreamer_core.optimize import run as one_run
from dreamer_core.optimize.report import PHASES
from dreamer_core.setting_values import values

ROOT = Path(__file__).resolve().parents[2]
FILES = {"splat.ply", "turntable.mp4", "views.png", "run.json", "metrics.csv", "state.safetensors"}
SMALL = ["--steps", "3", "--views", "1", "--resolution", "64", "--count", "150"]


def generate(model, out, *options):
    return main(
        ["generate", "a red mug", "--model", str(model), "--preset", "starter", *SMALL, "--out", str(out), *options]
    )


@pytest.fixture(scope="module")
def finished(tiny_sdxl_dir, tmp_path_factory):
    """A finished run of three steps."""
    out = tmp_path_factory.mktemp("run") / "mug"
    assert generate(tiny_sdxl_dir, out) == 0
    return out


def test_generate_writes_all_files(finished):
    assert {p.name for p in finished.iterdir()} == FILES
    assert len(read_ply(finished / "splat.ply")) == 150
    assert Image.open(finished / "views.png").size == (1024, 512)
    with av.open(str(finished / "turntable.mp4")) as film:
        (stream,) = film.streams.video
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    assert len(frames) == 120
    assert frames[0].shape == (512, 512, 3)
    assert frames[0].std() > 1  # there is something to see
    assert np.abs(frames[0].astype(int) - frames[60]).mean() > 0.05  # and it turns
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    log = json.loads((finished / "run.json").read_text())
    assert log["status"] == "complete"
    assert log["config"]["resolution"] == 64
    assert log["config"]["guidance"]["method"] == "sds"
    assert log["prompt"]["prompt"] == "a red mug"
    assert log["versions"]["torch"]
    assert set(log["seconds_per_step"]) == set(PHASES)


def test_same_seed_repeats_and_another_does_not(finished, tiny_sdxl_dir, tmp_path):
    assert generate(tiny_sdxl_dir, tmp_path / "again") == 0
    assert generate(tiny_sdxl_dir, tmp_path / "other", "--seed", "1") == 0
    first = (finished / "splat.ply").read_bytes()
    assert (tmp_path / "again" / "splat.ply").read_bytes() == first
    assert (tmp_path / "other" / "splat.ply").read_bytes() != first


def test_resume_extends_a_run_to_the_same_result(finished, tiny_sdxl_dir, tmp_path):
    out = tmp_path / "short"
    assert generate(tiny_sdxl_dir, out, "--steps", "1") == 0
    assert generate(tiny_sdxl_dir, out, "--resume") == 0
    assert (out / "splat.ply").read_bytes() == (finished / "splat.ply").read_bytes()
    assert [row["step"] for row in csv.DictReader((out / "metrics.csv").open())] == ["0", "1", "2"]


def test_a_run_is_not_lost_by_accident(finished, tiny_sdxl_dir, capsys):
    before = (finished / "splat.ply").read_bytes()
    assert generate(tiny_sdxl_dir, finished) == 2
    assert "--out: expected a folder without a run" in capsys.readouterr().err
    assert generate(tiny_sdxl_dir, finished, "--resume", "--cfg", "3", "--set", "prompt.side=profile") == 2
    told = capsys.readouterr().err
    assert "prompt.side: side view -> profile; " in told
    assert "guidance.cfg: 4.0 -> 3.0; repeat" in told
    assert generate(tiny_sdxl_dir, finished, "--resume", "--steps", "2") == 2
    assert "--steps: expected at least the 3 steps already made, got 2" in capsys.readouterr().err
    assert (finished / "splat.ply").read_bytes() == before


def test_the_clean_up_is_of_the_result_alone(finished, tiny_sdxl_dir, tmp_path, capsys, monkeypatch):
    """Extending the run goes on from all Gaussians, and the settings of the clean-up may change."""
    monkeypatch.setattr(session, "write_mp4", lambda frames, path, metadata: None)  # other tests look at the film
    out = tmp_path / "short"
    everything_goes = ["--set", "cleanup.min_opacity=0.0199", "--set", "cleanup.floaters=false"]
    assert generate(tiny_sdxl_dir, out, "--steps", "1", *everything_goes) == 0
    log = json.loads((out / "run.json").read_text())
    removed = log["removed"]["transparent"]
    assert 0 < removed < 150
    assert log["gaussians"] == len(read_ply(out / "splat.ply")) == 150 - removed
    assert f"removed {removed} transparent ones and 0 floaters" in capsys.readouterr().out
    assert generate(tiny_sdxl_dir, out, "--resume") == 0
    assert (out / "splat.ply").read_bytes() == (finished / "splat.ply").read_bytes()


@pytest.mark.parametrize("method", ["ism", "sds"])
def test_other_methods_run(tiny_sdxl_dir, tmp_path, method):
    assert generate(tiny_sdxl_dir, tmp_path / "out", "--method", method, "--steps", "1") == 0
    log = json.loads((tmp_path / "out" / "run.json").read_text())
    assert log["config"]["guidance"]["method"] == method
    assert log["config"]["guidance"]["cfg"] == {"ism": 7.5, "sds": 4.0}[method]  # SDS is the preset's


def test_start_from_a_splat(finished, tiny_sdxl_dir, tmp_path):
    argv = ["generate", "a red mug", "--model", str(tiny_sdxl_dir), "--preset", "starter", "--resolution", "64"]
    argv += ["--views", "1", "--steps", "1", "--init", str(finished / "splat.ply"), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert len(read_ply(tmp_path / "out" / "splat.ply")) == 150


def test_render_and_info(finished, tmp_path, capsys):
    ply = str(finished / "splat.ply")
    assert main(["render", ply, "--out", str(tmp_path / "one.png"), "--resolution", "96"]) == 0
    assert Image.open(tmp_path / "one.png").size == (96, 96)
    assert main(["render", ply, "--out", str(tmp_path / "six.png"), "--resolution", "64", "--views", "6"]) == 0
    assert Image.open(tmp_path / "six.png").size == (256, 128)
    assert main(["render", ply, "--out", str(tmp_path / "t.mp4"), "--resolution", "64", "--views", "5"]) == 0
    with av.open(str(tmp_path / "t.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 5
    parallel = [*("render", ply, "--out", str(tmp_path / "far.png"), "--resolution", "96", "--half-width", "20")]
    assert main(parallel) == 0
    near, far = (np.asarray(Image.open(tmp_path / name)).mean() for name in ("one.png", "far.png"))
    assert near < far  # so wide that the object covers hardly a pixel
    assert main([*parallel[:-1], "0"]) == 2
    assert "--half-width: expected world units from 0.01 to 100, got 0.0" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["info", ply]) == 0
    out = capsys.readouterr().out
    assert "Gaussians        150" in out
    assert "SH degree        0" in out


BAD = [
    (["generate", " "], "prompt: expected a description of the object, got an empty text"),
    (["generate", "x", "--resolution", "100"], "--resolution: expected a multiple of 64, at least 64, got 100"),
    (["generate", "x", "--steps", "0"], "--steps: expected a whole number from 1 to 1000000, got 0"),
    (["generate", "x", "--views", "-1"], "--views: expected a whole number from 1 to 64, got -1"),
    (["generate", "x", "--method", "tsm", "--gamma", "1.5"], "--gamma: expected a number from 0 to 1, got 1.5"),
    (["generate", "x", "--cfg", "nan"], "--cfg: expected a number from 0 to 1000, got nan"),
    (["generate", "x", "--clip", "some"], "--clip: expected a number above 0, or off, got some"),
    (["generate", "x", "--clip", "0"], "--clip: expected a number from 0.0001 to 100, got 0.0"),
    (["generate", "x", "--clip", "-1"], "--clip: expected a number from 0.0001 to 100, got -1.0"),
    (["generate", "x", "--device", "cuda:77"], "--device: expected a CUDA device that torch can use, got cuda:77"),
    (["generate", "x", "--device", "toaster"], "--device: expected auto, cpu, cuda, cuda:N or mps, got toaster"),
    (["generate", "x", "--renderer", "gsplat", "--device", "cpu"], "--renderer: expected"),
    (["generate", "x", "--init", "cone"], "--init: expected one of sphere, box, ball, views or a file (.ply"),
    (["generate", "x", "--init", "gone.ply"], "--init: expected a file, got gone.ply, which does not exist"),
    (["generate", "x", "--count", "0"], "--count: expected at least 4 Gaussians, got 0"),
    (
        ["generate", "x", "--set", "density.strat=5"],
        "--set: expected the name of a setting, got density.strat; did you",
    ),
    (
        ["generate", "x", "--set", "prompt.frnt=x"],
        "--set: expected the name of a setting, got prompt.frnt; did you mean",
    ),
    (["generate", "x", "--set", "prompt.prompt=y"], "--set prompt.prompt: expected the same as PROMPT, 'x', got 'y'"),
    (
        ["generate", "x", "--set", "density.max_gaussians=500"],
        "--set density.max_gaussians: expected a setting that has an effect, got one that has none: density.enabled is",
    ),
    (["generate", "x", "--clip", "off", "--set", "clip.threshold=0.2"], "got one that has none: clip.mode is off"),
    (["generate", "x", "--artefacts", "blurry"], "--artefacts: expected a setting that has an effect"),
    (["generate", "x", "--set", "prompt.perp_neg_weight=-3"], "got one that has none: prompt.perp_neg is false"),
    (
        ["generate", "x", "--set", "prompt.overhead=", "--set", "prompt.overhead_to=80"],
        "got one that has none: prompt.overhead is empty",
    ),
    (["generate", "x", "--set", "=3"], "--set: expected NAME=VALUE, got =3"),
    (
        ["generate", "x", "--preset", "official", "--set", "density.start=2000"],
        "--set density.start: expected below density.stop, 1500, got 2000",
    ),
    (["generate", "x", "--count", "5000000000"], "--count: expected at most 20000000 Gaussians, got 5000000000"),
    (["generate", "x", "--set", "cleanup.reach=0"], "--set cleanup.reach: expected a number from 0.1 to 100, got 0.0"),
    (["generate", "x", "--set", "memory=much"], "--set memory: expected one of auto, low, high, got much"),
    (["generate", "x", "--set", "density.start=x"], "--set density.start: expected a whole number, got x"),
    (["generate", "x", "--set", "cameras.fov=0.3"], "--set cameras.fov: expected 2 numbers separated by a comma"),
    (["generate", "x", "--set", "resolution=65"], "--set resolution: expected a multiple of 64"),
    (["generate", "x", "--set", "steps"], "--set: expected NAME=VALUE, got steps"),
    (["generate", "x", "--shap-e", "x", "--vae", "gone.safetensors"], "--vae: expected a file or folder that exists"),
    (["generate"], "PROMPT: expected what to make, such as 'a red mug', got nothing"),
    (["generate", "x", "--set", "guidance.t_widening=-9"], "--set guidance.t_widening: expected a whole number from 0"),
    (["generate", "x", "--set", "scale_noise=nan"], "--set scale_noise: expected a number from 0 to 1, got nan"),
    (
        ["generate", "x", "--set", "cameras.radius_min=9"],
        "--set cameras.radius: expected the lower value first, got (9",
    ),
    (
        ["generate", "x", "--set", "cameras.fov_max=200"],
        "--set cameras.fov: expected two numbers from 1 to 150 degrees",
    ),
    (
        ["generate", "x", "--set", "cameras.radius_mid=3"],
        "--set: expected the name of a setting, got cameras.radius_mid",
    ),
    (["generate", "x", "--set", "gamma=0.3"], "got gamma; did you mean guidance.gamma?"),
    (
        ["generate", "x", "--method", "sds", "--gamma", "0.3"],
        "--gamma: expected a setting of sds, got one of tsm; leave it out, or set guidance.method to one of these",
    ),
    (
        ["generate", "x", "--set", "guidance.csd_empty=0.2"],
        "--set guidance.csd_empty: expected a setting of sds, got one of csd; leave it out, or set "
        "guidance.method to one of these",
    ),
    (
        ["generate", "x", "--set", "guidance.method=tms"],
        "--set guidance.method: expected one of tsm, ism, sds, csd, sdi",
    ),
    (["generate", "x", "--method", "csd", "--cfg", "3"], "--cfg: expected a setting of csd, got one of"),
    (["generate", "x", "--method", "sds_bridge"], "--artefacts: expected words for artefacts"),
    (["generate", "x", "--model", "gone.safetensors"], "--model: expected"),
    (["generate", "x", "--vae", "gone.safetensors"], "--vae: expected"),
    (["generate", "x", "--lora", "gone.safetensors:0.5"], "--lora: expected"),
    (["generate", "x", "--resume"], "--resume: expected --out with the folder of the run"),
    (["generate", "x", "--out", "file.txt"], "--out: expected a folder, got file.txt, which is a file"),
    (["generate", "x", "--out", "file.txt/sub"], f"expected a path in a folder, got {Path('file.txt/sub')}, but"),
    (["generate", "x", "--lora", "a.safetensors:nan"], "--lora: expected PATH[:WEIGHT] with a finite weight"),
    (
        ["generate", "x", "--set", "learning_rates.means=0,0"],
        "--set learning_rates.means: expected two numbers from 1e-12 to 10",
    ),
    (["generate", "x", "--set", "guidance.cfg=nan"], "--set guidance.cfg: expected a number from 0 to 1000, got nan"),
    (["generate", "x", "--set", "guidance.method=sds_bridge"], "--artefacts: expected words for artefacts"),
    (["render", "gone.ply", "--out", "."], "--out: expected a name that ends in"),
    (["info", "."], "FILE: expected a splat file (.ply, .splat, .spz), got ., which is a folder"),
    (["render", "gone.ply", "--out", "a.png"], "FILE: expected a .ply file, got gone.ply"),
    (["render", "gone.ply", "--out", "a.bmp"], "--out: expected a name that ends in .png, .mp4, .webp, .gif"),
    (["render", "gone.ply", "--out", "a.mp4", "--resolution", "33"], "--resolution: expected"),
    (["render", "gone.ply", "--out", "a.png", "--fov", "0.55"], "--fov: expected degrees from 1 to 150, got 0.55"),
    (["render", "gone.ply", "--out", "a.png", "--background", "pink"], "--background: expected white, black, grey"),
    (["info", "file.txt"], "FILE: expected a splat file (.ply, .splat, .spz), got file.txt"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_line_exit_2_and_nothing_written(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("hello")
    assert main(argv) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("Loading ")]
    assert len(lines) == 1, err
    assert lines[0].startswith(f"{argv[0]}: error: ")
    assert message in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("argv", [["generate", "x", "--steps", "many"], ["paint"], ["render", "a.ply"]])
def test_usage_errors_are_one_line(argv, capsys):
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_read_only_output_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert main(["generate", "x", "--out", str(tmp_path / "sub")]) == 2
    assert f"--out: expected a place that can be written to, got {tmp_path / 'sub'}, but" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failing_run_says_why_and_keeps_its_state(tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    from dreamer_core.teachers.sdxl.predictor import DiffusersSDXL

    plain = DiffusersSDXL.eps
    monkeypatch.setattr(DiffusersSDXL, "eps", lambda *args: plain(*args) * float("nan"))
    out = tmp_path / "out"
    assert generate(tiny_sdxl_dir, out, "--steps", "30") == 1
    assert "10 steps in a row had NaN or inf in the gradient" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert {"splat.ply", "run.json", "metrics.csv", "state.safetensors"} == {p.name for p in out.iterdir()}
    assert {row["nonfinite"] for row in csv.DictReader((out / "metrics.csv").open())} != {"0"}


def test_pruning_everything_says_why(tiny_sdxl_dir, tmp_path, capsys):
    settings = ["density.enabled=true", "density.start=0", "density.every=1", "density.prune_opacity=0.9"]
    options = [word for setting in settings for word in ("--set", setting)]
    assert generate(tiny_sdxl_dir, tmp_path / "out", *options, "--steps", "4") == 1
    assert "density control removed every Gaussian" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"


def test_gaussians_that_are_not_finite_are_a_failure(tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    plain = one_run.optimize

    def poisoned(state, *rest):
        yield from plain(state, *rest)
        state.params["means"].data[0] = float("nan")

    monkeypatch.setattr(one_run, "optimize", poisoned)
    out = tmp_path / "out"
    assert generate(tiny_sdxl_dir, out, "--steps", "1") == 1
    assert "means of the Gaussians holds NaN or inf after step 1" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert not any((out / name).exists() for name in ("turntable.mp4", "splat.ply"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows delivers Ctrl-C to the whole console, pytest included")
def test_ctrl_c_keeps_what_exists(tiny_sdxl_dir, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dreamer_core", "generate", "a red mug", "--model", str(tiny_sdxl_dir)]
    command += ["--preset", "starter", *SMALL, "--steps", "100000", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stderr is not None
    seen, deadline = b"", time.monotonic() + 240
    while b"clipped=" not in seen:  # the first step is made
        assert time.monotonic() < deadline, seen
        assert process.poll() is None, seen
        seen += process.stderr.read1(4096)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert b"Interrupted after" in rest
    log = json.loads((out / "run.json").read_text())
    assert log["status"] == "interrupted"
    assert log["steps_made"] >= 1
    assert len(read_ply(out / "splat.ply")) == 150
    assert {"splat.ply", "views.png", "run.json", "metrics.csv", "state.safetensors"} == {p.name for p in out.iterdir()}
    assert len(list(csv.DictReader((out / "metrics.csv").open()))) == log["steps_made"]


def test_show_prints_every_setting_as_set_takes_it(capsys):
    argv = ["generate", "x", "--preset", "official", "--show", "--seed", "3"]
    changes = ["density.start=7", "cameras.fov=20,40", "guidance.offset_noise=none", "cameras.radius_min=3"]
    assert main([*argv, *(word for change in changes for word in ("--set", change))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"density.start=7", "cameras.fov=20.0,40.0", "guidance.offset_noise=None", "seed=3", "views=4"} <= set(lines)
    assert "cameras.radius=3.0,5.5" in lines  # one end of the two
    assert main([*argv, *(word for line in lines for word in ("--set", line))]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    """As in `generate --show | head -1`, with the reader gone before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dreamer_core", "generate", "--show"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def shown(capsys, *options):
    assert main(["generate", *options, "--show"]) == 0
    return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())


def test_settings_are_checked_together(capsys):
    """Each of these would be refused beside the other's default."""
    pairs = {"background.white": "1.0", "background.black": "0.0", "prompt.overhead_from": "80.0"}
    pairs["prompt.overhead_to"] = "90.0"
    found = shown(capsys, *(word for pair in pairs.items() for word in ("--set", "=".join(pair))))
    assert pairs.items() <= found.items()
    assert main(["generate", "x", "--show", "--set", "background.white=0.9", "--set", "background.black=0.2"]) == 2
    assert "--set background.white: expected at most 1 together with black, 0.2, got 0.9" in capsys.readouterr().err


def test_a_method_brings_its_values_however_it_is_chosen(capsys):
    official = ("--preset", "official")
    for options in (("--method", "sdi"), ("--set", "guidance.method=sdi")):
        found = shown(capsys, *official, *options)
        assert (found["guidance.t_first"], found["guidance.t_last"]) == ("999", "200")
        assert "guidance.gamma" not in found  # which is of another method
        assert found["guidance.offset_noise"] == "None"  # the method's own
    chosen = ("--set", "guidance.method=sds")
    assert shown(capsys, *official, *chosen)["guidance.cfg"] == "100.0"
    assert shown(capsys, *official, *chosen, "--set", "guidance.cfg=50")["guidance.cfg"] == "50.0"
    assert shown(capsys, *official, "--set", "guidance.cfg=50", *chosen)["guidance.cfg"] == "50.0"
    assert shown(capsys, "--preset", "paper", "--method", "tsm")["guidance.gamma"] == "0.3"  # chosen already
    assert shown(capsys, "--preset", "paper", "--method", "ism")["guidance.cfg"] == "7.5"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_show_prints_every_preset(preset, capsys):
    assert shown(capsys, "--preset", preset)["resolution"] == str(PRESETS[preset].config.resolution)  # needs no prompt
    found = shown(capsys, "a mug", "--preset", preset)
    assert found["resolution"] == str(PRESETS[preset].config.resolution)
    assert found["cleanup.enabled"] == str(PRESETS[preset].config.cleanup.enabled)
    assert found["prompt.prompt"] == "a mug"
    assert set(found) >= {"regularizers.tv_rgb", "density.strategy", "cameras.fov_pool", "memory", "prompt.inversion"}
    unread = {f"guidance.{name}" for name in PRESETS[preset].config.guidance.method.ignores}
    read = dict(values(PRESETS[preset].config)).keys() - unread
    assert {name for name in found if not name.startswith("prompt.")} == read
    assert found["prompt.negative"] == PRESETS[preset].negative
    assert shown(capsys, "--preset", preset, "--negative", "")["prompt.negative"] == ""
    assert shown(capsys, "--preset", preset, "--negative", "blurry")["prompt.negative"] == "blurry"


def test_options_reach_the_settings(capsys):
    options = ["--cameras", "head", "--memory", "low", "--perp-neg", "--set", "prompt.perp_neg_weight=-1"]
    assert main(["generate", "a king", "--preset", "fast", "--show", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"cameras.azimuth=-80.0,80.0", "cameras.azimuth_factor=1.5", "cameras.elevation=0.0,45.0"} <= set(lines)
    assert {"cameras.radius=5.2,5.5", "cameras.progress_every=200", "memory=low"} <= set(lines)
    assert {"prompt.perp_neg=True", "prompt.perp_neg_weight=-1.0", "prompt.prompt=a king"} <= set(lines)


def test_lora_option():
    assert Lora.parse("a.safetensors:0.5") == Lora(Path("a.safetensors"), 0.5)
    assert Lora.parse("a.safetensors") == Lora(Path("a.safetensors"), 1.0)
    assert Lora.parse("dir:x/a.safetensors") == Lora(Path("dir:x/a.safetensors"), 1.0)


def test_overwriting_leaves_nothing_of_the_earlier_run(finished, tiny_sdxl_dir, tmp_path, monkeypatch):
    """Not even where the new run ends before its first save."""
    out = tmp_path / "mug"
    shutil.copytree(finished, out)

    def fail(*args, **kwargs):
        raise OSError("the disk is gone")

    monkeypatch.setattr(session.Session, "optimise", fail)
    assert generate(tiny_sdxl_dir, out, "--overwrite", "--seed", "5") == 1
    assert {p.name for p in out.iterdir()} == {"run.json", "metrics.csv", "state.safetensors"}
    assert json.loads((out / "run.json").read_text())["config"]["seed"] == 5
    assert load_state(out / "state.safetensors", LearningRates()).step == 0
    assert (out / "metrics.csv").read_text().count("\n") == 1  # the heading


def test_damaged_metrics_are_left_out_with_a_word(finished, tiny_sdxl_dir, tmp_path, capsys):
    out = tmp_path / "mug"
    shutil.copytree(finished, out)
    with (out / "metrics.csv").open("a") as file:
        file.write("garbage\n")
    assert generate(tiny_sdxl_dir, out, "--resume", "--steps", "4") == 0
    assert "metrics.csv: 1 lines are left out, which cannot be read" in capsys.readouterr().err
    assert [row["step"] for row in csv.DictReader((out / "metrics.csv").open())] == ["0", "1", "2", "3"]


def test_another_renderer_is_another_run(finished, tiny_sdxl_dir, tmp_path, capsys):
    out = tmp_path / "mug"
    shutil.copytree(finished, out)
    assert generate(tiny_sdxl_dir, out, "--resume", "--steps", "4", "--renderer", "torch") == 2
    assert "renderer: numba -> torch" in capsys.readouterr().err


def test_a_version_with_other_results_says_so(finished, tiny_sdxl_dir, tmp_path, capsys, monkeypatch):
    from dreamer_core.cli import run_folder
    from dreamer_core.optimize import identity

    for module in (run_folder, identity):
        monkeypatch.setattr(module, "RESULTS", 99)
    out = tmp_path / "mug"
    shutil.copytree(finished, out)
    assert generate(tiny_sdxl_dir, out, "--resume", "--steps", "4") == 2
    assert "got one of another version; start another run with --out" in capsys.readouterr().err


def test_the_start_is_known_by_its_content_not_by_its_place(finished, tiny_sdxl_dir, tmp_path):
    for name in ("a.ply", "b.ply"):
        shutil.copy(finished / "splat.ply", tmp_path / name)
    out = tmp_path / "again"
    options = ["--model", str(tiny_sdxl_dir), "--preset", "starter", "--views", "1", "--resolution", "64"]
    begin = ["generate", "a red mug", *options, "--out", str(out)]
    assert main([*begin, "--steps", "1", "--init", str(tmp_path / "a.ply")]) == 0
    assert main([*begin, "--steps", "2", "--init", str(tmp_path / "b.ply"), "--resume"]) == 0


def test_memory_of_a_processor_that_runs_out(tiny_sdxl_dir, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 1 bytes")

    monkeypatch.setattr(session.Session, "optimise", fail)
    assert generate(tiny_sdxl_dir, tmp_path / "mug") == 1
    assert "generate: out of memory" in capsys.readouterr().err


def test_angles_follow_the_schedule_that_is_given(capsys):
    found = shown(capsys, "--preset", "starter", "--cameras", "head", "--set", "schedule_steps=400")
    assert found["cameras.progress_every"] == "100"


@pytest.mark.parametrize("method", ["sds", "csd", "sdi", "asd"])
def test_what_show_prints_set_takes_for_every_method(method, capsys):
    argv = ["generate", "x", "--method", method, "--show"]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main([*argv, *(word for line in lines for word in ("--set", line))]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_preview_takes_the_options_of_generate(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["preview", "x", "--shap-e", "nowhere"]) == 2
    assert "preview: error: --shap-e" in capsys.readouterr().err
