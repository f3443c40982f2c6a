"""Files and folders that several runs want at once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dreamer_core.cli import main
from dreamer_core.cli.own_folder import default_folder, make_default_folder, own_folder
from dreamer_core.errors import InputError
from dreamer_core.files import remove_abandoned, write_atomically

ROOT = Path(__file__).resolve().parents[2]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "film.mp4"

    def outer(temporary):
        temporary.write_text("outer")
        write_atomically(path, lambda other: other.write_text("inner"))
        assert path.read_text() == "inner"
        assert temporary.read_text() == "outer"
        assert temporary.suffix == ".mp4"

    write_atomically(path, outer)
    assert path.read_text() == "outer"
    assert os.listdir(tmp_path) == ["film.mp4"]


def test_a_name_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / ("x" * 251 + ".ply")
    write_atomically(path, lambda temporary: temporary.write_text("whole"))
    assert path.read_text() == "whole"


def test_a_failing_writer_leaves_nothing(tmp_path):
    def write(temporary):
        temporary.write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_atomically(tmp_path / "a.txt", write)
    assert os.listdir(tmp_path) == []


def test_default_folder_is_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [make_default_folder("A red mug!") for _ in range(3)] == [
        Path("outputs/a-red-mug"),
        Path("outputs/a-red-mug-2"),
        Path("outputs/a-red-mug-3"),
    ]
    assert default_folder("A red mug!") == Path("outputs/a-red-mug-4")
    assert default_folder("红") == default_folder("红")  # looks, and makes nothing
    assert make_default_folder("红") == Path("outputs/红")


def test_runs_that_begin_together_get_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    together = Barrier(8)

    def begin(_):
        together.wait()
        return make_default_folder("a red mug")

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(begin, range(8)))
    assert len(set(folders)) == 8
    assert all(folder.is_dir() for folder in folders)


def test_a_folder_that_stays_empty_goes_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for out in (None, Path("new/inner"), Path("there")):
        with own_folder(out, "a mug") as folder:
            assert folder.is_dir()
    assert os.listdir(tmp_path) == ["there"]
    with own_folder(None, "a mug") as folder:
        (folder / "splat.ply").write_text("kept")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*.*")] == [Path("outputs/a-mug/splat.ply")]
    with pytest.raises(RuntimeError), own_folder(None, "a mug"):
        raise RuntimeError
    assert os.listdir("outputs") == ["a-mug"]


def test_a_folder_in_use_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with own_folder(Path("out"), "a mug") as folder:
        (folder / "state.safetensors").write_text("of the run")
        for more in ([], ["--overwrite"], ["--resume"]):
            assert main(["generate", "a mug", "--out", "out", *more]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            expected = "generate: error: --out: expected a folder that no other run is using, got out, which one is; "
            assert line == f"{expected}wait for it, or name another folder"
    assert os.listdir("out") == ["state.safetensors"]
    with own_folder(Path("out"), "a mug"), pytest.raises(InputError), own_folder(Path("out/../out"), "a mug"):
        pass


def test_a_run_that_was_killed_blocks_nobody(tmp_path):
    code = (
        "import os, pathlib, sys; from dreamer_core.cli.own_folder import own_folder\n"
        "with own_folder(pathlib.Path(sys.argv[1]), ''): os._exit(9)"
    )
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT).returncode == 9
    assert [p.name for p in out.iterdir()] == [".lock"]
    with own_folder(out, "") as folder:
        assert folder == out
    assert os.listdir(out) == []


def test_a_folder_in_which_a_run_was_killed_at_once_is_taken_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/a-mug")
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    with own_folder(None, "a mug") as first, own_folder(None, "a mug") as second:
        assert (first, second) == (folder, Path("outputs/a-mug-2"))  # the first one is locked now
    folder.mkdir(parents=True)
    for name in (".lock", "splat.ply"):
        (folder / name).touch()
    with own_folder(None, "a mug") as other:
        assert other == Path("outputs/a-mug-2")  # what a run wrote is never taken


KILLED = """
import os, pathlib, signal, sys
from dreamer_core.files import write_atomically
def write(path):
    path.write_text("half")
    print(path.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "dies" else sys.stdin.read()
write_atomically(pathlib.Path(sys.argv[1]), write)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_killed_process_had_begun_goes_and_what_a_living_one_writes_stays(tmp_path):
    def begin(name, fate):
        command = [sys.executable, "-c", KILLED, str(tmp_path / name), fate]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with begin("a.ply", "dies") as dead, begin("b.ply", "lives") as living:
        of_dead, of_living = dead.stdout.readline().strip(), living.stdout.readline().strip()
        dead.wait()

        def ours(path):
            path.write_text("ours")
            old, named = tmp_path / ".c.0123abcd.tmp.ply", tmp_path / "mine.tmp.ply"  # of an earlier version; a user's
            for other in (old, named):
                other.touch()
            assert [p.name for p in remove_abandoned(tmp_path.iterdir())] == [of_dead]
            os.utime(old, (0, 0))
            assert remove_abandoned(tmp_path.iterdir()) == [old]
            assert {p.name for p in tmp_path.iterdir()} == {of_living, named.name, path.name}

        write_atomically(tmp_path / "d.ply", ours)
        living.communicate("")
    assert {p.name for p in tmp_path.iterdir()} == {"b.ply", "d.ply", "mine.tmp.ply"}
    assert (tmp_path / "b.ply").read_text() == "half"


def test_a_process_number_that_is_used_again_is_no_writer(tmp_path):
    """As in a container, where the first process is always number 1."""
    names = []

    def write(path):
        path.write_text("half")
        names.append(path.name)

    write_atomically(tmp_path / "a.ply", write)
    left = tmp_path / names[0]
    left.write_text("half")  # our own number, but nothing that we are writing
    assert remove_abandoned([left]) == [left]
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = tmp_path / names[0].replace(f"-{os.getpid():x}-", f"-{other.pid:x}-")
    left.write_text("half")
    assert remove_abandoned([left]) == []
    os.utime(left, (0, 0))  # long before that process began
    assert remove_abandoned([left]) == [left]
    other.communicate(b"\n")
