#!/usr/bin/env python3
"""One command for everything on a fresh machine: `python3 dev.py demo`, `python3 dev.py test`.

Needs Python 3.10 or newer and nothing else; makes `.venv`, installs what is missing, and reuses it afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
COMFYUI_VERSION = "v0.33.0"
COMFYUI_SOURCE = "https://github.com/Comfy-Org/ComfyUI"
COMFYUI_TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
HOST_TEST_TOOLS = (
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "plyfile>=1.1",
    "peft>=0.15",
    "accelerate>=1.0",
    "selenium>=4.25",
    "torchmetrics>=1.4",
    "manifold3d>=3.0",
    "scikit-image>=0.22",
    "trimesh>=5.0",
    "xatlas>=0.0.9",
)
DEMO_PROMPT = "a red mug"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For tests: their tensors are too small to share, and threads that wait for each other slow down a busy machine."""
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
"""Of pytest-xdist: a process for each core, which takes whole files, so that what a file prepares is made once."""
BROWSER_TESTS = "tests/e2e"
"""These draw in software on all cores: one after another."""
HOST_SUITES = {"host tests": "tests/nodes", "browser tests": BROWSER_TESTS}
OK, FAILED = "OK", "FAILED"
PYTEST_FOUND_NONE = 5
"""pytest's exit code where no test fits its options; ours, too."""
LINTED = ("dreamer_core", "nodes", "starter", "tests", "benchmarks", "examples", "tools", "dev.py", "__init__.py")


def fail(message: str) -> None:
    """Stop with one line."""
    sys.exit(f"dev.py: {message}")


def call(*command: object, env: dict[str, str] | None = None, cwd: Path = ROOT) -> int:
    """Run a command, shown first, in the repository's folder or another; its exit code."""
    words = [str(word) for word in command]
    print("$", " ".join(Path(w).name if i == 0 else w for i, w in enumerate(words)), flush=True)
    process = subprocess.Popen(words, cwd=cwd, env={**os.environ, **(env or {})})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the command got it, too, and decides what to keep
            continue


def venv_python(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(venv: Path, stamp_of: Sequence[str], installs: Sequence[Sequence[str]]) -> Path:
    """A virtual environment in which `installs` (arguments of pip install) were made; reused when unchanged."""
    python, stamp = venv_python(venv), venv / "dreamer-xl-stamp"
    wanted = hashlib.sha256("\n".join(stamp_of).encode()).hexdigest()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    if not python.is_file() or subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode:
        print(f"Making the virtual environment {venv.name} ...", flush=True)
        if call(sys.executable, "-m", "venv", "--clear", venv):
            shutil.rmtree(venv, ignore_errors=True)
            fail("could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv")
    print("Installing; the first time this loads torch, which can be some gigabytes.", flush=True)
    for arguments in installs:
        if call(python, "-m", "pip", "install", "--disable-pip-version-check", *arguments):
            fail("installation failed; the lines above say why. The next call tries again")
    stamp.write_text(wanted)
    return python


def core_python() -> Path:
    """The interpreter of `.venv` with requirements-dev.txt installed."""
    texts = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")]
    return make_venv(VENV, texts, [("-r", str(ROOT / "requirements-dev.txt"))])


def cache_folder() -> Path:
    """The user's cache folder of this project, as platformdirs names it: nothing is installed yet when it is asked."""
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "dreamer-xl"


def find_comfyui() -> Path | None:
    """COMFYUI_PATH, or the checkout in the cache folder, or None."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        path = Path(named).expanduser().resolve()
        if not (path / "comfy" / "sd.py").is_file():
            fail(f"COMFYUI_PATH: expected a ComfyUI folder, got {named}")
        return path
    cached = cache_folder() / "ComfyUI"
    return cached if (cached / "comfy" / "sd.py").is_file() else None


def comfyui_python(comfyui: Path) -> Path:
    """The interpreter that runs ComfyUI with this pack's requirements; its environment lies in the cache folder."""
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        return Path(named)
    requirements = [comfyui / "requirements.txt", ROOT / "requirements.txt"]
    stamp = [*COMFYUI_TORCH, *HOST_TEST_TOOLS, *(path.read_text() for path in requirements)]
    installs: list[tuple[str, ...]] = [COMFYUI_TORCH]
    installs += [("-r", str(path)) for path in requirements]
    installs.append(HOST_TEST_TOOLS)
    return make_venv(cache_folder() / "comfyui-venv", stamp, installs)


def link_folder(link: Path) -> None:
    """Make `link` another name of this folder."""
    if os.name == "nt":  # a junction needs no privilege
        subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)], check=True)
    else:
        link.symlink_to(ROOT, target_is_directory=True)


def link_pack(comfyui: Path) -> None:
    """Make ComfyUI see this folder as the custom node pack `dreamer-xl`."""
    custom_nodes = comfyui / "custom_nodes"
    if ROOT.parent == custom_nodes:
        return
    link = custom_nodes / "dreamer-xl"
    if link.resolve() == ROOT:
        return
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        fail(f"{link} exists and is not a link; move it away first")
    custom_nodes.mkdir(exist_ok=True)
    link_folder(link)


def demo_words(words: Sequence[str]) -> list[str]:
    """Arguments of `generate`: the demo's prompt where none comes first."""
    return [*words] if words and not words[0].startswith("-") else [DEMO_PROMPT, *words]


def command_demo(arguments: argparse.Namespace) -> int:
    """Make a splat from a prompt with the built-in checkpoint; paths are those of the caller's folder."""
    words = demo_words(arguments.words)
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    return call(core_python(), "-m", "dreamer_core", "generate", *words, env={"PYTHONPATH": path}, cwd=Path.cwd())


def command_comfyui(arguments: argparse.Namespace) -> int:
    """Prepare a ComfyUI for the pack and its tests."""
    comfyui = find_comfyui()
    if comfyui is None:
        comfyui = cache_folder() / "ComfyUI"
        if shutil.which("git") is None:
            fail("git is needed to get ComfyUI; or set COMFYUI_PATH to a checkout")
        comfyui.parent.mkdir(parents=True, exist_ok=True)
        clone = ("git", "clone", "--depth", "1", "--branch", COMFYUI_VERSION, COMFYUI_SOURCE, comfyui)
        if call(*clone):
            shutil.rmtree(comfyui, ignore_errors=True)
            fail("could not clone ComfyUI; set COMFYUI_PATH to a checkout instead")
    python = comfyui_python(comfyui)
    link_pack(comfyui)
    print(f"ComfyUI: {comfyui}\nPython:  {python}")
    if arguments.start:
        return call(python, comfyui / "main.py", *arguments.options)
    print(f"Start it with: {python} {comfyui / 'main.py'} (add --cpu where there is no GPU)")
    return 0


def check_pack_types(python: Path) -> int:
    """mypy on the modules that ComfyUI imports as a package; its exit code.

    They import relative to this folder, whose name (dreamer-xl) need not be a name in Python: here it has one.
    """
    options = ("--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache")
    with tempfile.TemporaryDirectory() as folder:
        link_folder(Path(folder) / "dreamer_xl")
        modules = ("--follow-imports", "silent", "-m", "dreamer_xl", "-p", "dreamer_xl.nodes")
        return call(python, "-m", "mypy", *options, *modules, cwd=Path(folder))


def run_tests(python: Path, folder: str, options: Sequence[str], env: dict[str, str], failures: list[str]) -> str:
    """pytest on a folder: OK, FAILED (the tests are added to `failures`), or why no test ran."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        spread = () if folder == BROWSER_TESTS else SIDE_BY_SIDE
        command = (python, "-m", "pytest", folder, f"--junitxml={report}", *spread, *options)
        code = call(*command, env={**env, **ONE_THREAD})
        if code not in (0, PYTEST_FOUND_NONE):
            failures += failed_tests(report, folder)
            return FAILED
        suites = ElementTree.parse(report).iter("testsuite") if report.is_file() else []
        ran = sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in suites)
        return OK if ran else "none was found, or all were skipped"


def failed_tests(report: Path, folder: str) -> Iterator[str]:
    """What pytest's report says failed: the test, and its error in a line."""
    for case in ElementTree.parse(report).iter("testcase") if report.is_file() else []:
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                words = (found.get("message") or found.text or "").split()
                yield f"{folder}: {case.get('classname')}::{case.get('name')}: {' '.join(words)[:300]}"


def host_suites(options: Sequence[str], failures: list[str]) -> dict[str, str]:
    """The tests inside a real ComfyUI and a browser: OK, FAILED, or why no test ran."""
    comfyui = find_comfyui()
    if comfyui is None:
        return dict.fromkeys(HOST_SUITES, "no ComfyUI found: set COMFYUI_PATH, or run python3 dev.py comfyui")
    python = comfyui_python(comfyui)
    env = {"COMFYUI_PATH": str(comfyui)}
    return {name: run_tests(python, folder, options, env, failures) for name, folder in HOST_SUITES.items()}


def command_test(arguments: argparse.Namespace) -> int:
    """Lint, types and tests; with --host also inside ComfyUI. Further options are pytest's, for all tests."""
    python = core_python()
    linted = [name for name in LINTED if (ROOT / name).exists()]
    codes = {
        "ruff check": call(python, "-m", "ruff", "check", *linted),
        "ruff format": call(python, "-m", "ruff", "format", "--check", *linted),
        "mypy": call(python, "-m", "mypy"),
        "mypy of the nodes": check_pack_types(python),
    }
    failures: list[str] = []
    tests = {"core tests": run_tests(python, "tests/core", arguments.options, {}, failures)}
    if arguments.host:
        tests |= host_suites(arguments.options, failures)
    results = {**{name: FAILED if code else OK for name, code in codes.items()}, **tests}
    for failure in failures:
        print(failure)
    verdict = FAILED if FAILED in results.values() else OK
    print(f"{verdict}: {', '.join(name for name, result in results.items() if result == verdict)}")
    for name, result in results.items():
        if result not in (OK, FAILED):
            print(f"NOT RUN: {name} ({result})", flush=True)
    if verdict == OK and OK not in tests.values():
        return PYTEST_FOUND_NONE
    return int(verdict == FAILED)


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="make a 3D splat: [PROMPT] [any options of `generate`]", add_help=False)
    test = commands.add_parser("test", help="lint, types and tests (further options go to pytest, as -k cameras)")
    test.add_argument("--host", action="store_true", help="also run the tests inside a real ComfyUI")
    test.set_defaults(run=command_test)
    comfyui = commands.add_parser("comfyui", help="prepare a ComfyUI for the pack and its tests")
    comfyui.add_argument("--run", dest="start", action="store_true", help="start it (further options go to ComfyUI)")
    comfyui.set_defaults(run=command_comfyui)
    if sys.argv[1:2] == ["demo"]:  # everything behind it belongs to `generate`
        return command_demo(argparse.Namespace(words=sys.argv[2:]))
    arguments, options = parser.parse_known_args()
    arguments.options = options
    return int(arguments.run(arguments))


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036  the message is for older interpreters
        fail(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    sys.exit(main())
