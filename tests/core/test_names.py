"""Names that files and folders may get, files of others beside ours, and consoles that lack a character."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamer_core.cli import main
from dreamer_core.cli.own_folder import folder_name
from dreamer_core.cli.run_folder import RunFolder
from dreamer_core.errors import InputError
from dreamer_core.files import NAME_AT_MOST, RESERVED, fitting_name
from dreamer_core.formats import load_gaussians, read_metadata, save_gaussians, sidecar
from dreamer_core.gaussians import Gaussians

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"prompt": "a red mug 🙂", "seed": 7}


@pytest.fixture(scope="module")
def mug():
    g = torch.Generator().manual_seed(0)
    return Gaussians.from_activated(
        torch.rand(50, 3, generator=g), torch.eye(4)[:1].repeat(50, 1), torch.full((50, 3), 0.05),
        torch.full((50,), 0.8), torch.rand(50, 3, generator=g),
    )  # fmt: skip


@pytest.fixture
def file(mug, tmp_path):
    path = tmp_path / "made" / "mug.ply"
    save_gaussians(mug, path, metadata=FACTS)
    return path


@pytest.mark.parametrize(
    "content",
    ['{"camera_model": "OPENCV"}', "[1, 2]", "{broken", "", '{"generator": "Another", "prompt": "x"}', "\ufeff{}"],
)
def test_a_json_of_others_is_neither_read_nor_replaced(mug, tmp_path, content, caplog):
    other = tmp_path / "transforms.json"
    other.write_text(content, encoding="utf-8")
    save_gaussians(mug, tmp_path / "transforms.spz", metadata=FACTS)
    assert other.read_text(encoding="utf-8") == content
    assert "stays as it is; ours is transforms.dreamer-xl.json" in caplog.text
    assert read_metadata(tmp_path / "transforms.spz") == {**FACTS, "generator": "Dreamer XL"}
    save_gaussians(mug, tmp_path / "transforms.spz", metadata={"seed": 8})
    assert read_metadata(tmp_path / "transforms.spz")["seed"] == 8
    assert {p.name for p in tmp_path.iterdir()} == {"transforms.json", "transforms.spz", "transforms.dreamer-xl.json"}


@pytest.mark.parametrize("name", ["views.png", "metrics.csv", "turntable.mp4", "splat.spz", "turntable.gif"])
def test_a_run_replaces_no_file_of_others(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"a folder without files that a run would replace, got .* with {name}"):
        RunFolder(tmp_path).check(resume=False, overwrite=False)
    RunFolder(tmp_path).check(resume=False, overwrite=True)


def test_new_pictures_of_a_run_leave_a_json_of_others(mug, tmp_path):
    (tmp_path / "splat.json").write_text("[1]")
    save_gaussians(mug, tmp_path / "splat.ply", metadata=FACTS)
    RunFolder(tmp_path).remove_pictures()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["splat.json", "splat.ply"]
    (tmp_path / "splat.json").unlink()
    save_gaussians(mug, tmp_path / "splat.ply", metadata=FACTS)
    RunFolder(tmp_path).remove_pictures()
    assert [path.name for path in tmp_path.iterdir()] == ["splat.ply"]


@pytest.mark.parametrize("content", ["[1]", "{broken", "", '{"objects": 3}'])
def test_a_list_replaces_no_index_of_others(tmp_path, content, capsys):
    (tmp_path / "index.json").write_text(content)
    (tmp_path / "list.jsonl").write_text('{"prompt": "a red mug"}')
    assert main(["batch", str(tmp_path / "list.jsonl"), "--out", str(tmp_path)]) == 2
    assert "whose index.json is another program's" in capsys.readouterr().err
    assert (tmp_path / "index.json").read_text() == content


def test_both_names_taken(mug, tmp_path, caplog):
    for name in ("a.json", "a.dreamer-xl.json"):
        (tmp_path / name).write_text("[]")
    save_gaussians(mug, tmp_path / "a.splat", metadata=FACTS)
    assert "a.dreamer-xl.json is not ours and stays as it is" in caplog.text
    assert [(tmp_path / n).read_text() for n in ("a.json", "a.dreamer-xl.json")] == ["[]", "[]"]
    assert read_metadata(tmp_path / "a.splat") == {}


def test_a_link_that_leads_nowhere_is_not_ours(mug, tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "gone" / "a.json")
    save_gaussians(mug, tmp_path / "a.splat", metadata=FACTS)
    assert (tmp_path / "a.json").is_symlink()
    assert read_metadata(tmp_path / "a.splat")["seed"] == 7


def test_ours_is_replaced(mug, tmp_path):
    for seed in (1, 2):
        save_gaussians(mug, tmp_path / "a.spz", metadata={"seed": seed})
    assert json.loads((tmp_path / "a.json").read_text()) == {"seed": 2, "generator": "Dreamer XL"}


@pytest.mark.parametrize("stem", ["n" * 251, "名" * 83, "n" * 247, "🙂 %s 'q' & $x", " lead", "-dash", "a.b.c"])
def test_names_at_the_limit(mug, tmp_path, stem):
    path = tmp_path / f"{stem}.spz"
    save_gaussians(mug, path, metadata=FACTS)
    assert len(load_gaussians(path)) == 50
    assert len(os.fsencode(sidecar(path).name)) <= 255
    assert read_metadata(path)["prompt"] == FACTS["prompt"]


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=400))
def test_a_fitting_name_fits_and_is_the_same_again(stem):
    name = fitting_name(stem, ".json")
    assert len(name.encode()) <= NAME_AT_MOST
    assert name.endswith(".json")
    assert name == fitting_name(stem, ".json")
    assert (name == f"{stem}.json") == (len(stem.encode()) <= 250)


@given(st.text(max_size=300))
def test_folder_names_are_names_everywhere(prompt):
    name = folder_name(prompt)
    assert 0 < len(name) <= 66
    assert len(name.encode()) <= 250
    assert not set(name) & set('/\\:*?"<>|. \0')
    assert name not in RESERVED


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("A red mug!", "a-red-mug"), ("красная кружка", "красная-кружка"), ("名前", "名前"), ("CON", "con-splat"),
     ("aux.", "aux-splat"), ("lpt1", "lpt1-splat"), ("console", "console"), ("..", "splat"), ("🙂", "splat"),
     ("cafe\u0301", "café"), ("x_y", "x-y"), ("x" * 400, "x" * 60)],
)  # fmt: skip
def test_folder_names(prompt, name):
    assert folder_name(prompt) == name


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_characters(file, tmp_path, encoding):
    out = tmp_path / "名前.spz"
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    for argv in (["info", file], ["convert", file, out], ["info", out], ["info", tmp_path / "無.ply"]):
        done = subprocess.run(
            [sys.executable, "-m", "dreamer_core", *map(str, argv)], capture_output=True, env=env, cwd=ROOT, check=False
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode == (2 if argv[1] == tmp_path / "無.ply" else 0)
        if argv == ["info", file]:
            assert b"a red mug \\U0001f642" in done.stdout
        if argv[0] == "convert":
            assert done.stdout.strip().endswith(b"\\u540d\\u524d.spz")
    assert len(load_gaussians(out)) == 50


def test_dashes_and_spaces_on_the_command_line(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(file), "--", "-dash it.ply"]) == 0
    assert len(load_gaussians(tmp_path / "-dash it.ply")) == 50
