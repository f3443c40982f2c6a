"""Nothing that is read is ever run: the sources hold no way to turn data into code. See SECURITY.md."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for top in ("dreamer_core", "nodes", "starter") for p in (ROOT / top).rglob("*.py"))
SOURCES.append(ROOT / "__init__.py")

MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "subprocess"}
MODULES |= {"zipfile", "tarfile"}
"""Modules that turn bytes into objects of any class, start programs, or unpack to where an archive says."""
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile"}
CALLS = {
    "os.system", "os.popen", "os.execv", "os.execve", "os.spawnv", "tempfile.mktemp", "torch.hub.load",
    "yaml.load", "yaml.unsafe_load", "pandas.read_pickle", "numpy.lib.format.read_array",
}  # fmt: skip
UNPACKING = {"extractall", "unpack_archive"}
"""Methods that write where an archive says."""
OWN_TABLES = {"dreamer_core/evaluation/a_lpips.py", "dreamer_core/meshes/packages.py"}
"""Files that import optional packages by names that stand in the file itself."""
DOWNLOADS = {"urlretrieve", "hf_hub_download", "snapshot_download"}


NAMED = "imports what a value names"


def dotted(node):
    """`a.b.c` of a chain of attributes; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def constant(call, name):
    """A keyword's constant, None where it is not given or computed."""
    found = [k.value for k in call.keywords if k.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def imported(node):
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [node.module or ""] if not node.level else []
    return [f"imports {name}" for name in names if name.partition(".")[0] in MODULES]


def called(call):
    """What is wrong with a call."""
    name = dotted(call.func)
    last = call.func.attr if isinstance(call.func, ast.Attribute) else name
    if name in BUILTINS or name in CALLS or last in DOWNLOADS | UNPACKING:
        yield name or last
    if name == "torch.load" and constant(call, "weights_only") is not True:
        yield "torch.load without weights_only"
    if last in ("load", "fromfile", "loadtxt") and constant(call, "allow_pickle"):
        yield "allow_pickle"
    if last == "from_pretrained" and constant(call, "use_safetensors") is False:
        yield "from_pretrained without safetensors"
    if last in ("import_module", "spec_from_file_location") and not isinstance(call.args[0], ast.Constant):
        yield NAMED
    for keyword in call.keywords:
        if keyword.arg == "trust_remote_code" or (keyword.arg == "shell" and constant(call, "shell")):
            yield keyword.arg


def faults(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(node)
        elif isinstance(node, ast.Call):
            yield from called(node)


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 100


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_no_data_becomes_code(path):
    found = list(faults(path.read_text(encoding="utf-8")))
    if path.relative_to(ROOT).as_posix() in OWN_TABLES:
        found = [fault for fault in found if fault != NAMED]
    assert found == []


BAD = [
    "import pickle", "from pickle import loads", "import os, marshal", "eval(text)", "exec(text)", "__import__(name)",
    "os.system(text)", "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)",
    "import subprocess", "run(text, shell=True)", "importlib.import_module(settings['class'])", "archive.extractall(x)",
    "AutoModel.from_pretrained(x, trust_remote_code=True)", "Pipe.from_pretrained(x, use_safetensors=False)",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_the_scan_finds(text):
    assert list(faults(text))


@pytest.mark.parametrize(
    "text",
    ["import json", "model.eval()", "torch.load(path, weights_only=True)", "import_module('nodes')", "re.compile(x)"],
)
def test_the_scan_lets_pass(text):
    assert not list(faults(text))


def test_reading_files_imports_no_way_to_run_them():
    """What the readers use is loaded without a call of theirs to pickle: an unpickler that is met raises."""
    import pickle
    import tempfile

    from dreamer_core.errors import InputError
    from dreamer_core.formats import load_gaussians
    from dreamer_core.teachers.sdxl.checkpoints import identify

    class Bomb:
        def __reduce__(self):
            return (sys.exit, ("code from data has run",))

    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.ply", "a.spz", "a.splat", "model.safetensors", "model.ckpt", "model.bin", "model.pt"):
            path = Path(folder) / name
            path.write_bytes(pickle.dumps(Bomb()))
            try:
                found = identify(path) if name.startswith("model") else load_gaussians(path)
            except (InputError, ValueError):
                continue
            assert "SDXL" not in str(found)
