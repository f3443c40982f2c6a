"""A new setting is one line, a new method one file and its name in the list: nodes, help and locale follow."""

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
    patience: Annotated[int, Knob("Steps it waits. 1 to 7.", 1, 7, 1)] = 3

    def __call__(self, predictor, z, noise, steps, cond):
        return GuidanceResult(0.0 * z, calls=0, samples=0)
'''
ASK = """
import asyncio, importlib, importlib.util, json, sys
pack, comfy = sys.argv[1:]
sys.path[:0] = [comfy]
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import comfy.cli_args
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
sys.path.append(pack)
from tools import help_pages, locales
G, R = "DreamerXLTSMGuidance", "DreamerXLRegularizers"
print("ANSWER" + json.dumps({
    "info": {n: info[n] for n in (G, R)},
    "tables": {n: help_pages.tables(info[n]) for n in (G, R)},
    "english": {n: locales.english(info)[n] for n in (G, R)},
    "touched": config("paper", R, glow=1.5),
    "untouched": config("paper", R, glow=-1.0),
    "method": config("paper", G, method={"method": "still", "patience": 5}),
}))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """What the nodes and tools of a copy of the pack say, to which a setting and a method were added."""
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
    command = [sys.executable, "-c", ASK, str(copy), os.environ["COMFYUI_PATH"]]
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
