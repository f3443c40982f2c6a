"""`dev.py`, the one command of a fresh machine, without what it would install."""

import sys
from pathlib import Path

import platformdirs
import pytest

import dev


def pack(folder, types):
    """A pack of two modules in a folder whose name is none of Python's."""
    for name in ("nodes", "dreamer_core"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text("[tool.mypy]\nexplicit_package_bases = true\n")
    (folder / "__init__.py").write_text("from .nodes.loader import NAME\n")
    (folder / "dreamer_core" / "names.py").write_text("NAME = 'a'\n")
    (folder / "nodes" / "loader.py").write_text(f"from ..dreamer_core.names import NAME\n\nlength: {types} = NAME\n")
    return folder


@pytest.mark.parametrize(("types", "code"), [("str", 0), ("int", 1)])
def test_the_types_of_the_pack_are_checked_in_a_folder_of_any_name(tmp_path, monkeypatch, capfd, types, code):
    pytest.importorskip("mypy")
    monkeypatch.setattr(dev, "ROOT", pack(tmp_path / "dreamer-xl", types))
    assert dev.check_pack_types(sys.executable) == code
    out = capfd.readouterr().out
    assert ("loader.py:3: error" in out) is bool(code)
    assert "Cannot find" not in out


class Commands:
    """Stands in for `dev.call`: pytest writes a report and exits as told for its folder; all else succeeds."""

    def __init__(self, **outcomes):
        self.outcomes = outcomes
        """By folder: exit code, tests, skipped."""
        self.options = {}

    def __call__(self, *command, env=None, cwd=None):
        if "pytest" not in command:
            return 0
        folder, report, *options = command[3:]
        self.options[folder] = options
        code, tests, skipped = self.outcomes.get(folder.split("/")[1], (0, 3, 1))
        broken = '<testcase classname="test_x" name="test_y[1]"><failure message="assert 1 == 2&#10; + x"/></testcase>'
        suite = f'<testsuite tests="{tests}" skipped="{skipped}">{broken if code == 1 else ""}</testsuite>'
        Path(report.removeprefix("--junitxml=")).write_text(f"<testsuites>{suite}</testsuites>")
        return code


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """`dev.py test` with its commands replaced: exit code and the last lines, from the verdict on."""
    monkeypatch.setattr(dev, "core_python", lambda: Path("python"))
    monkeypatch.setattr(dev, "comfyui_python", lambda comfyui: Path("python"))
    monkeypatch.setattr(dev, "find_comfyui", lambda: tmp_path)

    def test(*options, commands=None):
        monkeypatch.setattr(dev, "call", commands or Commands())
        monkeypatch.setattr(sys, "argv", ["dev.py", "test", *options])
        return dev.main(), capsys.readouterr().out.splitlines()

    return test


CHECKS = "ruff check, ruff format, mypy, mypy of the nodes"
NONE = "none was found, or all were skipped"


def test_all_that_ran_is_named(run):
    assert run() == (0, [f"OK: {CHECKS}, core tests"])
    assert run("--host") == (0, [f"OK: {CHECKS}, core tests, host tests, browser tests"])


def test_host_tests_without_a_comfyui_are_not_called_ok(run, monkeypatch):
    monkeypatch.setattr(dev, "find_comfyui", lambda: None)
    code, lines = run("--host")
    assert code == 0
    why = "no ComfyUI found: set COMFYUI_PATH, or run python3 dev.py comfyui"
    assert lines == [
        f"OK: {CHECKS}, core tests",
        f"NOT RUN: host tests ({why})",
        f"NOT RUN: browser tests ({why})",
    ]


def test_host_tests_that_were_all_skipped_are_not_called_ok(run):
    commands = Commands(nodes=(0, 7, 7), e2e=(0, 2, 2))
    assert run("--host", commands=commands) == (
        0,
        [f"OK: {CHECKS}, core tests", f"NOT RUN: host tests ({NONE})", f"NOT RUN: browser tests ({NONE})"],
    )


def test_failures_are_named_before_what_did_not_run(run):
    commands = Commands(core=(1, 3, 0), nodes=(2, 0, 0), e2e=(5, 0, 0))
    assert run("--host", commands=commands) == (
        1,
        [
            "tests/core: test_x::test_y[1]: assert 1 == 2 + x",
            "FAILED: core tests, host tests",
            f"NOT RUN: browser tests ({NONE})",
        ],
    )


def test_pytest_options_reach_every_suite_and_one_that_fits_is_enough(run):
    commands = Commands(core=(5, 0, 0), e2e=(5, 0, 0))
    code, lines = run("--host", "-k", "loader", commands=commands)
    given, spread = ["-k", "loader"], [*dev.SIDE_BY_SIDE, "-k", "loader"]
    assert commands.options == {"tests/core": spread, "tests/nodes": spread, "tests/e2e": given}
    assert code == 0
    assert lines == [f"OK: {CHECKS}, host tests", f"NOT RUN: core tests ({NONE})", f"NOT RUN: browser tests ({NONE})"]


def test_no_test_at_all_is_no_success(run):
    assert run("-k", "typo", commands=Commands(core=(5, 0, 0))) == (
        5,
        [f"OK: {CHECKS}", f"NOT RUN: core tests ({NONE})"],
    )


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs' newer releases also read XDG_CACHE_HOME on macOS")
@pytest.mark.parametrize("chosen", [False, True])
def test_the_cache_folder_is_where_platformdirs_puts_it(tmp_path, monkeypatch, chosen):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if chosen:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert dev.cache_folder() == (tmp_path if chosen else Path.home() / ".cache") / "dreamer-xl"
    assert dev.cache_folder() == platformdirs.user_cache_path("dreamer-xl", appauthor=False, opinion=False)
