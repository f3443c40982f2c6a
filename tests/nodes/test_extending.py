"""A new setting is one line, a new method or format one file and its name in the list: all else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTING = '    glow: Annotated[float, Knob("Weight of a throw-away term. 0 to 2.", 0.0, 9.0, 0.5)] = 0.25\n'
METHOD = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..settings import Knob
from .base import GuidanceResult
from .method import Method


@dataclass(frozen=True)
class Still(Method):
    """Stands still (no paper). It moves nothing."""

    name = "still"
    ignores = ("stride",)
    patience: Annotated[int, Knob("Steps it waits. 1 to 7.", 1, 7, 1)] = 3

    def __call__(self, predictor, z, noise, steps, cond):
        asked.append((self.patience, list(z.shape)))
        return GuidanceResult(0.0 * z, calls=0, samples=0)


asked = []
'''
FORMAT = """
from __future__ import annotations

from .format import Format


def write_count(gaussians, path, metadata=None, field="splat"):
    path.write_text(f"{len(gaussians)} Gaussians")


COUNT = Format(".count", "a count", "how many there are, and nothing else", write=write_count)
"""
ASK = """
import asyncio, importlib, importlib.util, json, sys
from pathlib import Path
pack, comfy, base, miniature = sys.argv[1:]
sys.path[:0] = [comfy]
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import comfy.cli_args
import folder_paths, torch
from comfy_api.internal import make_locked_method_func
from comfy_api.latest import io
for kind in ("user", "output", "input", "temp"):
    getattr(folder_paths, f"set_{kind}_directory")(base)
spec = importlib.util.spec_from_file_location("extended", f"{pack}/__init__.py")
module = sys.modules["extended"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
nodes = asyncio.run(importlib.import_module("extended.nodes.extension").DreamerXLExtension().get_node_list())
info = json.loads(json.dumps({n.GET_SCHEMA().node_id: n.GET_NODE_INFO_V1() for n in nodes}))
found = {n.GET_SCHEMA().node_id: n for n in nodes}
build = importlib.import_module("extended.nodes.optimize").build_config
values = importlib.import_module("extended.dreamer_core.setting_values").values
def config(preset, node, **inputs):
    return dict(values(build(preset, found[node].execute(**inputs).args[0])))
def run(node, **inputs):
    clone = found[node].PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "1"}})
    with torch.inference_mode():
        return make_locked_method_func(found[node], "execute", clone)(**inputs).args
with torch.inference_mode():
    model, clip, vae = importlib.import_module("extended.nodes.host.starter").load_starter(Path(miniature))
(splat,) = run("DreamerXLInitialize", source={"source": "sphere", "count": 100})
(guidance,) = run("DreamerXLTSMGuidance", method={"method": "still", "patience": 5})
(prompt,) = run("DreamerXLPrompt", clip=clip, prompt="a red mug")
small = {"preset": "starter", "steps": 2, "views": 1, "resolution": 64, "seed": 0, "final_views": 1}
made, _ = run("DreamerXLOptimize", model=model, vae=vae, prompt=prompt, splat=splat, guidance=guidance, **small)
(file,) = run("DreamerXLExport", splat=made, filename_prefix="new", format="count")
sys.path.append(pack)
from tools import help_pages, locales
G, R, E = "DreamerXLTSMGuidance", "DreamerXLRegularizers", "DreamerXLExport"
print("ANSWER" + json.dumps({
    "info": {n: info[n] for n in (G, R, E)},
    "tables": {n: help_pages.tables(info[n]) for n in (G, R, E)},
    "english": {n: locales.english(info)[n] for n in (G, R, E)},
    "asked": importlib.import_module("extended.dreamer_core.guidance.still").asked,
    "exported": [Path(p).read_text() for p in Path(base).rglob("new_*.count")],
    "touched": config("paper", R, glow=1.5),
    "untouched": config("paper", R, glow=-1.0),
    "method": config("paper", G, method={"method": "still", "patience": 5}),
}))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory, miniature):
    """What the nodes and tools of a copy of the pack say, to which a setting, a method and a format were added."""
    copy = tmp_path_factory.mktemp("extended") / "pack"
    for name in ("nodes", "dreamer_core", "tools"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", copy)
    lines = (copy / "dreamer_core/optimize/regularizers.py").read_text(encoding="utf-8").splitlines(keepends=True)
    end = next(i for i, line in enumerate(lines) if line.startswith("TERMS"))
    last = max(i for i in range(end) if lines[i].strip())
    lines.insert(last + 1, SETTING)
    (copy / "dreamer_core/optimize/regularizers.py").write_text("".join(lines), encoding="utf-8")
    (copy / "dreamer_core/guidance/still.py").write_text(METHOD, encoding="utf-8")
    config = (copy / "dreamer_core/guidance/methods.py").read_text(encoding="utf-8")
    assert "SDSBridge)\n" in config
    config = config.replace("from .tsm import TSM\n", "from .still import Still\nfrom .tsm import TSM\n")
    config = config.replace("SDSBridge)\n", "SDSBridge, Still)\n")
    (copy / "dreamer_core/guidance/methods.py").write_text(config, encoding="utf-8")
    (copy / "dreamer_core/formats/count.py").write_text(FORMAT, encoding="utf-8")
    formats = (copy / "dreamer_core/formats/splat_files.py").read_text(encoding="utf-8")
    assert "SPLAT, SPZ)\n" in formats
    formats = formats.replace("from .format import Format\n", "from .count import COUNT\nfrom .format import Format\n")
    formats = formats.replace("SPLAT, SPZ)\n", "SPLAT, SPZ, COUNT)\n")
    (copy / "dreamer_core/formats/splat_files.py").write_text(formats, encoding="utf-8")
    base, comfy = tmp_path_factory.mktemp("comfyui"), os.environ["COMFYUI_PATH"]
    command = [sys.executable, "-c", ASK, str(copy), os.path.expanduser(comfy), str(base), str(miniature)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("ANSWER")[2])


def test_a_new_setting_is_everywhere(extended):
    name = "DreamerXLRegularizers"
    kind, described = extended["info"][name]["input"]["optional"]["glow"]
    tip = "Weight of a throw-away term. 0 to 2. -1: the preset's (0.25)."
    assert (kind, described["tooltip"]) == ("FLOAT", tip)
    assert [described[k] for k in ("default", "min", "max", "step")] == [-1.0, -1.0, 9.0, 0.5]
    assert f"| `glow` | 0 to 9, or **-1** | {tip} |" in extended["tables"][name]
    assert extended["english"][name]["inputs"]["glow"] == {"tooltip": tip}
    before = {k: v for k, v in extended["untouched"].items() if k != "regularizers.glow"}
    assert extended["untouched"] == {**before, "regularizers.glow": 0.25}
    assert extended["touched"] == {**before, "regularizers.glow": 1.5}


def test_a_new_method_is_everywhere(extended):
    name = "DreamerXLTSMGuidance"
    _, described = extended["info"][name]["input"]["required"]["method"]
    assert described["options"][-1]["key"] == "still"
    assert described["tooltip"].endswith("still: Stands still (no paper).")
    _, patience = described["options"][-1]["inputs"]["optional"]["patience"]
    tip = "Steps it waits. 1 to 7. -1: the method's own (3)."
    assert [patience[k] for k in ("tooltip", "default", "max")] == [tip, -1, 7]
    assert f"| `method.patience` *(still)* | 1 to 7, or **-1** | {tip} |" in extended["tables"][name]
    assert extended["english"][name]["inputs"]["method_patience"] == {"tooltip": tip}
    assert extended["method"]["guidance.method"] == "still"
    assert extended["method"]["guidance.patience"] == 5
    assert "guidance.gamma" not in extended["method"]
    assert "sds_bridge, still. -1: the preset" in described_of(extended, name, "stride")


def described_of(extended, node, name):
    return extended["info"][node]["input"]["optional"][name][1]["tooltip"]


def test_a_new_method_runs_from_its_node(extended):
    assert extended["asked"] == [[5, [1, 4, 8, 8]]] * 2


def test_a_new_format_is_everywhere(extended):
    name, tip = "DreamerXLExport", "count: how many there are, and nothing else."
    _, described = extended["info"][name]["input"]["required"]["format"]
    assert described["options"][-1] == "count"
    assert described["tooltip"].endswith(tip)
    (row,) = (line for line in extended["tables"][name].splitlines() if line.startswith("| `format` |"))
    assert row.endswith(f"{tip} |")
    assert extended["english"][name]["inputs"]["format"]["tooltip"].endswith(tip)
    assert extended["exported"] == ["100 Gaussians"]
