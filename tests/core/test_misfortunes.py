"""Full and read-only disks, files that vanish: one clear line, and nothing that was there is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dreamer_core import files
from dreamer_core.cameras import turntable
from dreamer_core.cli import generate as generate_command
from dreamer_core.cli import main, session
from dreamer_core.cli.run_folder import RunFolder
from dreamer_core.errors import InputError
from dreamer_core.files import claimed, remove_abandoned
from dreamer_core.formats import WRITABLE, save_gaussians
from dreamer_core.initializers import initial_shape
from dreamer_core.media import FILMS, write_film, write_png
from dreamer_core.optimize import LearningRates, OptimizationState, Recipe, load_state, save_state
from dreamer_core.optimize import run as one_run
from dreamer_core.optimize.identity import Identity

ROOT = Path(__file__).resolve().parents[2]


class Disk:
    """A file system of its own, of a size and a mode that can be changed."""

    def __init__(self, path, size):
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))

    def _mount(self, *arguments):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")

    def change(self, options):
        self._mount("-o", f"remount,{options}", str(self.path))


@pytest.fixture
def disk(tmp_path):
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("needs root on Linux, to mount a small file system")
    made = Disk(tmp_path / "disk", "64k")
    yield made
    subprocess.run(["umount", "--lazy", str(made.path)], check=True)


def noise(size):
    return torch.rand(size, size, 3, generator=torch.Generator().manual_seed(0))


def sphere(count):
    return initial_shape("sphere", count, torch.Generator().manual_seed(0))


WRITERS = {
    **{suffix: lambda path: save_gaussians(sphere(20_000), path) for suffix in WRITABLE},
    ".png": lambda path: write_png(noise(512), path),
    **{suffix: lambda path: write_film([noise(512)] * 3, path) for suffix in FILMS},
    ".safetensors": lambda path: save_state(OptimizationState.create(sphere(5000), LearningRates()), path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_full_disk_keeps_the_file_that_was_there(disk, suffix):
    path = disk.path / f"thing{suffix}"
    path.write_bytes(b"earlier")
    with pytest.raises(OSError, match="No space left"):
        WRITERS[suffix](path)
    assert os.listdir(disk.path) == [path.name]
    assert path.read_bytes() == b"earlier"


def test_a_disk_that_tells_late_that_it_is_full(tmp_path, monkeypatch):
    """Network file systems say so when the file is flushed. One that cannot flush is no error."""

    def flush(number):
        def fsync(_):
            raise OSError(number, os.strerror(number))

        return fsync

    path = tmp_path / "a.txt"
    monkeypatch.setattr(files.os, "fsync", flush(errno.EINVAL))
    files.write_atomically(path, lambda temporary: temporary.write_text("first"))
    monkeypatch.setattr(files.os, "fsync", flush(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, lambda temporary: temporary.write_text("second"))
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.read_text() == "first"


@pytest.fixture(autouse=True)
def short_film(monkeypatch):
    """Nobody looks at it here."""
    monkeypatch.setattr(session, "turntable", lambda views, size, **more: turntable(min(views, 2), 64, **more))


def generate(model, out, *options):
    small = ["--steps", "3", "--views", "1", "--resolution", "64", "--count", "150", "--preset", "starter"]
    return main(["generate", "a red mug", "--model", str(model), *small, "--out", str(out), *options])


@pytest.fixture(scope="module")
def whole(tiny_sdxl_dir, tmp_path_factory):
    """The splat of a run to which nothing happened."""
    out = tmp_path_factory.mktemp("whole") / "mug"
    assert generate(tiny_sdxl_dir, out) == 0
    return (out / "splat.ply").read_bytes()


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_room(disk, tiny_sdxl_dir, whole, capsys):
    """The state fits, the film does not."""
    disk.change("size=88k")
    out = disk.path / "mug"
    assert generate(tiny_sdxl_dir, out) == 1
    assert last_line(capsys).startswith("generate: cannot read or write a file: [Errno 28] No space left on device")
    there = {p.name for p in out.iterdir()}
    assert there >= {"splat.ply", "state.safetensors", "metrics.csv", "run.json"}
    assert "turntable.mp4" not in there
    assert json.loads((out / "run.json").read_text())["status"] in ("running", "failed")  # the log may not fit either
    assert load_state(out / "state.safetensors", LearningRates()).step == 3
    disk.change("size=8m")
    assert generate(tiny_sdxl_dir, out, "--resume") == 0
    assert (out / "splat.ply").read_bytes() == whole
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_a_save_on_the_way_that_fails_is_told_and_the_run_goes_on(tiny_sdxl_dir, whole, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(one_run, "SAVE_EVERY_SECONDS", -1.0)
    plain, failed = one_run.Run.keep, []

    def keep(self):
        if self.state.step == 2 and not failed:
            failed.append(1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(self)

    monkeypatch.setattr(one_run.Run, "keep", keep)
    assert generate(tiny_sdxl_dir, tmp_path / "mug") == 0
    assert failed == [1]
    assert "The run goes on, but could not be saved: [Errno 28] No space left on device" in caplog.text
    assert (tmp_path / "mug" / "splat.ply").read_bytes() == whole


def test_a_folder_that_becomes_read_only(disk, tiny_sdxl_dir, whole, capsys, monkeypatch):
    disk.change("size=8m")
    out = disk.path / "mug"
    plain = one_run.optimize

    def refuse(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def cut(*arguments):
        for report in plain(*arguments):
            if report.step == 1:
                monkeypatch.setattr(files, "_flush", refuse)
            yield report

    monkeypatch.setattr(one_run, "optimize", cut)
    assert generate(tiny_sdxl_dir, out) == 1
    assert last_line(capsys).startswith("generate: cannot read or write a file: [Errno 30] Read-only file system")
    monkeypatch.undo()
    assert {p.name for p in out.iterdir()} == {"state.safetensors", "run.json"}
    disk.change("ro")
    assert generate(tiny_sdxl_dir, out, "--resume") == 2
    assert "generate: error: --out: expected a place that can be written to, got" in last_line(capsys)
    disk.change("rw")
    assert generate(tiny_sdxl_dir, out, "--resume") == 0
    assert (out / "splat.ply").read_bytes() == whole


def test_a_checkpoint_that_vanishes_before_it_is_loaded(tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny_sdxl_dir, model)
    plain = generate_command.check_paths

    def then_it_goes(args):
        plain(args)
        shutil.rmtree(model)

    monkeypatch.setattr(generate_command, "check_paths", then_it_goes)
    assert generate(model, tmp_path / "mug") == 2
    assert last_line(capsys).endswith("got a path that does not exist (model); check the path")
    assert not (tmp_path / "mug").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are in use")
def test_a_checkpoint_that_vanishes_while_a_run_uses_it(tiny_sdxl_dir, whole, tmp_path, monkeypatch):
    model = tmp_path / tiny_sdxl_dir.name  # which the splat names
    shutil.copytree(tiny_sdxl_dir, model)
    plain = one_run.optimize

    def cut(*arguments):
        for report in plain(*arguments):
            shutil.rmtree(model, ignore_errors=True)
            yield report

    monkeypatch.setattr(one_run, "optimize", cut)
    assert generate(model, tmp_path / "mug") == 0
    assert not model.exists()
    assert (tmp_path / "mug" / "splat.ply").read_bytes() == whole


def test_a_saved_run_that_is_cut_off_is_refused_in_one_line(tiny_sdxl_dir, tmp_path, capsys):
    out = tmp_path / "mug"
    assert generate(tiny_sdxl_dir, out, "--steps", "1") == 0
    state = out / "state.safetensors"
    data = state.read_bytes()
    for left in (b"", data[:7], data[:200], data[:-1]):
        state.write_bytes(left)
        assert generate(tiny_sdxl_dir, out, "--resume") == 2
        assert "generate: error: --resume: expected a saved run, got" in last_line(capsys)
        assert state.read_bytes() == left


def test_a_saved_run_whose_tensors_do_not_go_together_is_refused(tmp_path):
    from safetensors.torch import save_file

    state = OptimizationState.create(sphere(5), LearningRates())
    state.params["means"].grad = torch.ones(5, 3)
    state.descend(LearningRates(), 10)
    whole, path = state.tensors(), tmp_path / "state.safetensors"

    def load(**changes):
        tensors = {k: v for k, v in {**whole, **changes}.items() if v is not None}
        save_file(tensors, path, metadata={"format": "dreamer-xl-state-1"})
        return load_state(path, LearningRates())

    assert load().tensors().keys() == whole.keys()
    for changes, told in [
        ({"params.scales": None}, "params.scales is missing"),
        ({"params.quats": torch.zeros(5, 3)}, "params.quats is torch.float32 of shape [5, 3]"),
        ({"params.means": torch.zeros(4, 3)}, "of shape [5"),
        ({"params.sh0": torch.zeros(5, 1, 3, dtype=torch.int64)}, "params.sh0 is torch.int64"),
        ({"params.shN": torch.zeros(5)}, "params.shN is"),
        ({"params.shN": torch.zeros(5, 2, 3)}, "params.shN is torch.float32 of shape [5, 2, 3]"),
        ({"params.more": torch.zeros(5)}, "params.more is"),
        ({"adam.means.exp_avg": torch.zeros(5)}, "adam.means.exp_avg is of shape [5]"),
        ({"adam.other.exp_avg": torch.zeros(5, 3)}, "adam.other.exp_avg is of shape"),
        ({"adam.shN.step": torch.tensor(1.0)}, "adam.shN.step belongs to nothing"),
        ({"adam.means.exp_avg": torch.zeros(5, 3, dtype=torch.int64)}, "adam.means.exp_avg is torch.int64"),
        ({"density.grad2d": torch.zeros(4)}, "density.grad2d is torch.float32 of shape [4]"),
        ({"density.count": torch.zeros(5, dtype=torch.int64)}, "density.count is torch.int64"),
        ({"density.other": torch.zeros(5)}, "density.other is"),
        ({"more": torch.zeros(5)}, "more is of no known kind"),
        ({"step": torch.tensor(-1)}, "step is no whole number"),
        ({"bad_steps": torch.tensor([1.5])}, "bad_steps is no whole number"),
    ]:
        with pytest.raises(InputError) as error:
            load(**changes)
        assert told in str(error.value)


@pytest.mark.parametrize(("name", "text"), [("memory", "{"), ("memory", "{}"), ("memory", "[1]"), ("identity", "x")])
def test_a_saved_run_whose_description_cannot_be_read_is_refused(tmp_path, name, text):
    state = OptimizationState.create(sphere(5), LearningRates())
    save_state(state, tmp_path / "state.safetensors", {name: text, "memory_mode": "auto"})
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="--resume: expected a saved run"):
        folder.memory_plan("auto") if name == "memory" else folder.check_identity(Identity(Recipe(), {}))


def test_a_name_is_one_process_at_a_time(tmp_path):
    with claimed(tmp_path, "mug_00001_") as first, claimed(tmp_path, "mug_00001_") as second:
        assert (first, second) == (True, False)
        assert remove_abandoned(tmp_path.iterdir()) == []  # it is in use
        with claimed(tmp_path, "mug_00002_") as other:
            assert other
    assert os.listdir(tmp_path) == []
    code = "import os, pathlib, sys; from dreamer_core.files import claimed\n"
    code += "with claimed(pathlib.Path(sys.argv[1]), 'mug'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 9
    with claimed(tmp_path, "mug") as ours:
        assert not ours
    (removed,) = remove_abandoned(tmp_path.iterdir())
    assert removed.name.startswith(".mug.")
    with claimed(tmp_path, "x" * 250) as long, claimed(tmp_path, "x" * 249 + "y") as other:
        assert long
        assert other
