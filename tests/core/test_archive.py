"""What `comfy node publish` would upload: built as comfy-cli builds it, and looked into as a scanner does."""

import ast
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
pathspec = pytest.importorskip("pathspec", reason="hatchling brings it")

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 48_000_000
"""Bytes of the archive; the built-in checkpoint alone is 35 MB."""
RUNTIME = {
    "CHANGELOG.md", "LICENSE", "README.md", "__init__.py", "dreamer_core", "example_workflows", "locales", "nodes",
    "SECURITY.md", "pyproject.toml", "requirements.txt", "starter", "subgraphs", "web",
}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads"}
FORBIDDEN_MODULES = {"subprocess", "pickle", "ctypes", "pip", "ensurepip", "socketserver"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The tracked files that .comfyignore leaves, in a zip: comfy-cli's `zip_files`."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("comfy-cli packs what git tracks, and this is no checkout")
    lines = (ROOT / ".comfyignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    ignored = pathspec.PathSpec.from_lines("gitwildmatch", patterns)
    path = tmp_path_factory.mktemp("archive") / "node.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() and not ignored.match_file(name):
                made.write(ROOT / name, name)
    return path


@pytest.fixture(scope="module")
def modules(archive):
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name).decode() for name in packed.namelist() if name.endswith(".py")}


def test_it_holds_what_runs_and_nothing_else(archive):
    names = zipfile.ZipFile(archive).namelist()
    assert {name.split("/")[0] for name in names} == RUNTIME
    assert {name.split("/")[1] for name in names if name.startswith("starter/")} == {"checkpoint", "lora"}
    assert "starter/checkpoint/unet/diffusion_pytorch_model.safetensors" in names
    assert not [name for name in names if re.search(r"\.(zip|tar|gz|whl|exe|dll|so|pyd|bat|sh|ckpt|pt|pth|pkl)$", name)]
    assert archive.stat().st_size < LARGEST


def called(node):
    """ "os.system" of `os.system(...)`; a method of a value has no name that means anything here."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def test_no_code_runs_other_programs_or_code_from_text(modules):
    found = []
    for name, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and called(node.func) in FORBIDDEN_CALLS:
                found.append(f"{name}:{node.lineno}: {called(node.func)}")
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{name}:{node.lineno}: {one}" for one in named if one.split(".")[0] in FORBIDDEN_MODULES]
    assert not found


def test_every_relative_import_is_in_it(archive, modules):
    """The pack starts from the archive alone."""
    names = set(zipfile.ZipFile(archive).namelist())
    for name, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = "/".join(name.split("/")[: -node.level])
                place = "/".join(x for x in (folder, *(node.module or "").split(".")) if x)
                assert f"{place}.py" in names or f"{place}/__init__.py" in names, f"{name}: {place}"


def test_the_registry_is_told_what_it_asks_for():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, comfy = said["project"], said["tool"]["comfy"]
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", project["name"])
    assert "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == {"file": "LICENSE"}
    assert {"Homepage", "Repository", "Documentation", "Issues"} <= set(project["urls"])
    assert comfy["PublisherId"]
    assert comfy["requires-comfyui"].startswith(">=")
    for key, side in (("Icon", (400, 400)), ("Banner", (1260, 540))):
        file = ROOT / "docs" / "pictures" / comfy[key].rpartition("/")[2]
        width, height = re.search(r'width="(\d+)" height="(\d+)"', file.read_text()).groups()
        assert (int(width), int(height)) == side
    assert "Operating System :: OS Independent" in project["classifiers"]
