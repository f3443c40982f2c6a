"""The wheel: built, unpacked elsewhere and run from there."""

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dreamer_core import __version__
from dreamer_core.cli import generate, main

ROOT = Path(__file__).resolve().parents[2]
PARTS = {".py", ".jsonl", ".html", ".css", ".js"}
"""Of the package: its code, the suites, and the parts of a report."""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    before = set(ROOT.iterdir())
    command = [*PIP, "wheel", ROOT, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert set(ROOT.iterdir()) == before, "the build leaves files in the checkout"
    return next(folder.glob("*.whl"))


def test_it_holds_the_core_with_its_checkpoint_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"dreamer_xl-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"dreamer_core", info}
    source, starter = ROOT / "dreamer_core", ROOT / "starter" / "checkpoint"
    modules = {
        f"dreamer_core/{path.relative_to(source).as_posix()}" for path in source.rglob("*") if path.suffix in PARTS
    }
    data = {
        f"dreamer_core/starter/{path.relative_to(starter).as_posix()}" for path in starter.rglob("*") if path.is_file()
    }
    assert {name for name in names if name.startswith("dreamer_core/")} == modules | data
    assert (generate.STARTER_PLACES[0] / "model_index.json").relative_to(ROOT).as_posix() in data


def test_it_needs_what_the_pack_needs_and_torch_only_without_comfyui(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"dreamer_xl-{__version__}.dist-info/METADATA").decode()
    needed = [Requirement(one) for one in email.message_from_string(text).get_all("Requires-Dist")]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    always = {one for one in needed if one.marker is None}
    assert always == {Requirement(line) for line in lines}
    assert "torch" not in {one.name for one in always}
    assert "torch" in {one.name for one in needed if one.marker and one.marker.evaluate({"extra": "standalone"})}


@pytest.mark.parametrize(
    ("extra", "package"), [("mesh", "xatlas"), ("mesh", "manifold3d"), ("mesh", "scikit-image"), ("ray", "ray")]
)
def test_optional_parts_are_extras(wheel, extra, package):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"dreamer_xl-{__version__}.dist-info/METADATA").decode()
    said = email.message_from_string(text)
    assert {"ray", "evaluate", "mesh", "standalone"} <= set(said.get_all("Provides-Extra"))
    needed = [Requirement(one) for one in said.get_all("Requires-Dist")]
    assert package in {one.name for one in needed if one.marker and one.marker.evaluate({"extra": extra})}


def test_it_runs_where_it_is_installed(wheel, tmp_path):
    target = tmp_path / "installed"
    subprocess.run([*PIP, "install", "-q", wheel, "--no-deps", "--no-compile", "--target", target], check=True)

    def run(*command):
        environment = {**os.environ, "PYTHONPATH": str(target)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert "usage: python -m dreamer_core" in run(sys.executable, "-m", "dreamer_core", "--help")
    script = next((target / "bin").glob("dreamer-xl*"))
    assert "usage: dreamer-xl" in run(script, "--help")


def test_without_the_built_in_checkpoint_a_model_has_to_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "STARTER_PLACES", (tmp_path / "gone",))
    assert main(["generate", "a red mug", "--out", str(tmp_path / "run")]) == 2
    error = (
        "generate: error: --model: expected an SDXL checkpoint (a diffusers folder or a .safetensors file), got none"
    )
    assert capsys.readouterr().err.startswith(error)
