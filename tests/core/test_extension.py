"""A throw-away method is one file and a name in one tuple, a throw-away setting one line; everything else follows."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

METHOD = '''"""A throw-away method."""

from dataclasses import dataclass
from typing import Annotated

from ..settings import Knob
from .base import GuidanceResult
from .method import Method


@dataclass(frozen=True)
class Fade(Method):
    """Fades towards nothing (of this test alone). It asks no network."""

    name = "fade"
    fade_speed: Annotated[float, Knob("How fast it fades, as a share. 0 to 1.", 0.0, 1.0, 0.1, flag=True)] = 0.5

    def __call__(self, predictor, z, noise, steps, cond):
        return GuidanceResult(self.fade_speed * z, calls=0, samples=0)
'''
SETTING = '    glow: Annotated[float, Knob("Weight of a throw-away term. 0 to 7. 0: off.", 0.0, 7.0, 0.1)] = 0.0\n'

PROGRAM = """
import contextlib, io, json, sys
import dreamer_core
from dreamer_core.cli import main, session
from dreamer_core.errors import InputError

session.write_mp4 = lambda frames, path, metadata: None  # other tests look at the film
found = []
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code
    found.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps({"package": dreamer_core.__file__, "found": found}))
"""


def insert(path, before, line):
    """Put `line` before the one place where `before` stands."""
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, line + before), encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with the method and the setting added; a call runs commands in it, in one process."""
    folder = tmp_path_factory.mktemp("extended")
    package = folder / "dreamer_core"
    shutil.copytree(ROOT / "dreamer_core", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "guidance" / "fade.py").write_text(METHOD, encoding="utf-8")
    config = package / "guidance" / "methods.py"
    insert(config, "from .ism import ISM\n", "from .fade import Fade\n")
    insert(config, "SDSBridge)\n", "Fade, ")
    insert(package / "optimize" / "regularizers.py", "    max_anisotropy: Annotated[", SETTING)

    def run(*commands):
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(commands)],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert Path(result["package"]).is_relative_to(folder)
        return result["found"]

    return run


def generate(*options):
    return ["generate", "a mug", *options]


def settings(shown):
    assert shown["code"] == 0, shown["err"]
    return dict(line.split("=", 1) for line in shown["out"].splitlines())


def test_a_method_is_one_file(extended, tiny_sdxl_dir, tmp_path):
    small = ["--model", str(tiny_sdxl_dir), "--preset", "starter", "--steps", "1", "--views", "1", "--count", "100"]
    small += ["--resolution", "64", "--renderer", "torch"]
    fade = ["--method", "fade"]
    slow, fast = ("--set", "guidance.fade_speed=0.25"), ("--fade-speed", "0.5")
    usage, plain, chosen, changed, outside, elsewhere, unknown, *runs = extended(
        ["generate", "--help"],
        generate("--show"),
        generate("--show", *fade),
        generate("--show", "--set", "guidance.method=fade", *slow),
        generate("--show", *fade, "--set", "guidance.fade_speed=2"),
        generate("--show", *slow),
        generate("--show", "--set", "guidance.fade_sped=1"),
        generate(*small, *fade, *slow, "--out", str(tmp_path / "slow")),
        generate(*small, *fade, *fast, "--out", str(tmp_path / "fast")),
    )
    words = " ".join(usage["out"].split())
    assert "fade: Fades towards nothing (of this test alone)" in words
    assert "--fade-speed FADE_SPEED How fast it fades, as a share. 0 to 1." in words
    assert "guidance.fade_speed" not in settings(plain)
    assert settings(chosen).items() >= {"guidance.method": "fade", "guidance.fade_speed": "0.5"}.items()
    assert settings(changed).items() >= {"guidance.method": "fade", "guidance.fade_speed": "0.25"}.items()
    assert outside["code"] == elsewhere["code"] == unknown["code"] == 2
    assert "--set guidance.fade_speed: expected a number from 0 to 1, got 2.0" in outside["err"]
    assert "guidance.fade_speed: expected a setting of sds, got one of fade" in elsewhere["err"]
    assert "did you mean guidance.fade_speed" in unknown["err"]

    norms = []
    for name, done in zip(("slow", "fast"), runs):
        assert done["code"] == 0, done["err"]
        (row,) = csv.DictReader((tmp_path / name / "metrics.csv").open())
        assert (row["network_calls"], row["nonfinite"]) == ("0", "0")
        norms.append(float(row["gradient_norm"]))
        log = json.loads((tmp_path / name / "run.json").read_text())
        assert log["config"]["guidance"]["method"] == "fade"
        assert (tmp_path / name / "splat.ply").is_file()
    assert norms[0] > 0
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-4)


def test_a_setting_is_one_line(extended):
    plain, changed, outside, wrong, near = extended(
        generate("--show", "--preset", "official"),
        generate("--show", "--set", "regularizers.glow=6.5"),
        generate("--show", "--set", "regularizers.glow=8"),
        generate("--show", "--set", "regularizers.glow=much"),
        generate("--show", "--set", "glow=1"),
    )
    assert settings(plain)["regularizers.glow"] == "0.0"
    assert settings(changed)["regularizers.glow"] == "6.5"
    assert outside["code"] == wrong["code"] == near["code"] == 2
    assert "--set regularizers.glow: expected a number from 0 to 7, got 8.0" in outside["err"]
    assert "--set regularizers.glow: expected a number, got much" in wrong["err"]
    assert "did you mean regularizers.glow?" in near["err"]
