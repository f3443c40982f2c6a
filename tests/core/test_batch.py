"""The command `batch`: objects, states, what goes on after a cut."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dreamer_core.batch.store import Store
from dreamer_core.cli import generate, main, session
from dreamer_core.cli.teachers import Teachers

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"preset": "starter", "steps": 3, "views": 1, "resolution": 64, "count": 150}


@pytest.fixture(autouse=True)
def no_films(monkeypatch):
    monkeypatch.setattr(session, "write_mp4", lambda frames, path, metadata: None)  # other tests look at the film


def write(path, *lines):
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def states(out):
    content = json.loads((out / "index.json").read_text())
    return {row["name"]: (row["state"], row["steps"]) for row in content["objects"]}


def test_a_list_is_made_once_and_a_failure_stops_one_object(tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    loads = []
    monkeypatch.setattr(Teachers, "get", counted(Teachers.get, loads))
    out = tmp_path / "made"
    lines = [
        {"defaults": {**SMALL, "model": str(tiny_sdxl_dir)}},
        {"prompt": "a red mug", "name": "mug"},
        {"prompt": "a mug", "name": "broken", "lora": ["gone.safetensors"]},
        {"prompt": "a green mug", "name": "green", "seed": 4},
    ]
    argv = ["batch", write(tmp_path / "list.jsonl", *lines), "--out", str(out)]
    assert main(argv) == 1
    assert states(out) == {"mug": ("complete", 3), "broken": ("failed", 0), "green": ("complete", 3)}
    told = capsys.readouterr()
    assert "2 of 3 complete, 1 failed" in told.out
    assert "broken: --lora: expected a file or folder that exists, got gone.safetensors" in told.err
    assert "[1/3] mug: complete after 3 steps" in told.err
    assert len(set(loads)) == 1  # one teacher for both
    splats = {name: (out / name / "splat.ply").read_bytes() for name in ("mug", "green")}
    times = {name: (out / name / "splat.ply").stat().st_mtime_ns for name in splats}
    lines[2] = {"prompt": "a blue mug", "name": "blue"}
    write(tmp_path / "list.jsonl", *lines)
    assert main(argv) == 0
    assert states(out) == dict.fromkeys(("mug", "blue", "green"), ("complete", 3))
    assert times == {name: (out / name / "splat.ply").stat().st_mtime_ns for name in splats}  # not made again
    alone = tmp_path / "alone"
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    argv = ["generate", "a green mug", "--model", str(tiny_sdxl_dir), *options, "--seed", "4", "--out", str(alone)]
    assert main(argv) == 0
    assert (alone / "splat.ply").read_bytes() == splats["green"]  # a kept teacher changes nothing


def counted(plain, loads):
    def get(self, args, device):
        teacher = plain(self, args, device)
        loads.append(id(teacher))
        return teacher

    return get


def test_another_option_of_the_teacher_is_another_teacher(monkeypatch):
    """A kept teacher with the adapter of the object before would make the next one wrong without a word."""
    asked = []

    class Recorded:
        def __init__(self, given):
            self.given = given

        def __getattr__(self, name):
            asked.append(name)
            return self.given[name]

    given = {"model": "m", "vae": None, "tokenizer": None, "lora": [], "multiview": None, "parameterization": None}
    given |= {"dtype": "auto", "vae_dtype": "float32", "compile": False, "init": None}
    monkeypatch.setattr("dreamer_core.teachers.sdxl.loading.load_sdxl", lambda *args, **options: object())
    generate.load_teacher(Recorded(given), torch.device("cpu"))
    read = set(asked)
    assert "multiview" in read
    for name in read:
        kept = Teachers(keep=True)
        kept.get(Recorded(given), torch.device("cpu"))
        kept.get(Recorded({**given}), torch.device("cpu"))
        assert kept.loads == 1
        other = {
            "lora": ["a:0.5"],
            "parameterization": "v",
            "dtype": "float16",
            "vae_dtype": "bfloat16",
            "init": "views",
        }
        kept.get(Recorded({**given, name: other.get(name, "other")}), torch.device("cpu"))
        assert kept.loads == 2, name


def test_a_named_folder_is_not_taken_for_another_object(tiny_sdxl_dir, tmp_path, capsys):
    out = tmp_path / "made"
    each = ["--each", "--model", str(tiny_sdxl_dir), *(f"--{k}={v}" for k, v in SMALL.items())]
    path = write(tmp_path / "list.jsonl", {"prompt": "a red mug", "name": "mug", "steps": 1})
    assert main(["batch", path, "--out", str(out), *each]) == 0
    write(tmp_path / "list.jsonl", {"prompt": "a red mug", "name": "mug", "steps": 2})
    before = (out / "mug" / "splat.ply").read_bytes()
    assert main(["batch", path, "--out", str(out), *each]) == 1
    assert "name: expected a folder that holds the same object" in capsys.readouterr().err
    assert (out / "mug" / "splat.ply").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows delivers Ctrl-C to the whole console, pytest included")
def test_ctrl_c_leaves_a_list_that_goes_on_to_the_same_result(tiny_sdxl_dir, tmp_path):
    lines = [{"defaults": {**SMALL, "model": str(tiny_sdxl_dir)}}]
    lines += [{"prompt": "a red mug", "name": "long", "steps": 12}, {"prompt": "a mug", "name": "later"}]
    path = write(tmp_path / "list.jsonl", *lines)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    command = [sys.executable, "-m", "dreamer_core", "batch", path, "--out"]
    process = subprocess.Popen([*command, str(cut)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stderr is not None
    seen, deadline = b"", time.monotonic() + 240
    while b"clipped=" not in seen:  # the first step is made
        assert time.monotonic() < deadline, seen
        assert process.poll() is None, seen
        seen += os.read(process.stderr.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert b"The same command goes on with it." in rest
    state, steps = states(cut)["long"]
    assert (state, states(cut)["later"]) == ("interrupted", ("waiting", 0))
    assert 1 <= steps < 12
    assert main(["batch", path, "--out", str(cut)]) == 0
    assert main(["batch", path, "--out", str(whole)]) == 0
    assert states(cut) == {"long": ("complete", 12), "later": ("complete", 3)}
    for name in ("long", "later"):
        assert (cut / name / "splat.ply").read_bytes() == (whole / name / "splat.ply").read_bytes()


def test_a_wrong_line_stops_the_list_before_it_begins(tmp_path, capsys):
    path = write(tmp_path / "list.jsonl", {"prompt": "a"}, {"prompt": "b", "steps": 0})
    assert main(["batch", path, "--out", str(tmp_path / "made")]) == 2
    assert "batch: error: line 2: --steps: expected" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("place", ["memory://stores/one", "folder"])
def test_an_object_takes_the_place_of_what_there_was(place, tmp_path):
    store = Store(place if "://" in place else str(tmp_path / place))
    store.write_folder("mug", {"error.txt": b"a trace", "run.json": b"{}", "more/a.txt": b"1"})
    store.write_folder("mug", {"run.json": b"{}", "splat.ply": b"ply"})
    assert store.read_folder("mug") == {"run.json": b"{}", "splat.ply": b"ply"}
    assert store.read_folder("none") == {}


def test_object_storage_by_its_url(tiny_sdxl_dir, tmp_path, capsys):
    """The same objects as in a folder, and nothing is made twice."""
    import fsspec

    lines = [{"defaults": {**SMALL, "model": str(tiny_sdxl_dir), "steps": 1}}, {"prompt": "a red mug", "name": "mug"}]
    path = write(tmp_path / "list.jsonl", *lines)
    argv = ["batch", path, "--out", "memory://lists/one"]
    assert main(argv) == 0
    memory = fsspec.filesystem("memory")
    splat = memory.cat_file("/lists/one/mug/splat.ply")
    assert json.loads(memory.cat_file("/lists/one/index.json"))["counts"] == {"complete": 1}
    capsys.readouterr()
    assert main(argv) == 0
    assert "Loading" not in capsys.readouterr().err
    assert main(["batch", path, "--out", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made" / "mug" / "splat.ply").read_bytes() == splat
    assert main(["batch", path, "--out", "nosuch://x"]) == 2
    assert "--out: expected a folder, or a URL that fsspec knows" in capsys.readouterr().err
