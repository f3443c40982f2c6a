"""The example workflows: both formats agree, the server accepts them, and those of the starter run."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest
from small_graphs import SMALL

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "example_workflows"
NAMES = sorted(p.stem for p in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def built():
    sys.path.append(str(ROOT))
    from tools.workflows import all_workflows

    return {w.name: w for w in all_workflows()}


@pytest.fixture(scope="module")
def info(server):
    return server.get("/object_info")


def editor(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def api(name):
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_workflow_is_described_and_has_its_copies(built):
    assert set(NAMES) == set(built)
    assert sorted(p.stem for p in (FOLDER / "api").glob("*.json")) == NAMES
    assert sorted(p.stem for p in FOLDER.glob("*.jpg")) == NAMES
    assert len(NAMES) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_files_are_what_the_builder_writes(built, info, name):
    """After a change of a node's inputs: python -m tools.workflows."""
    assert api(name) == built[name].api(info)
    assert editor(name) == built[name].editor(info)


@pytest.mark.parametrize("name", NAMES)
def test_layout(name):
    """No node lies on another, each lies in one group, links run to the inputs that name them."""
    graph = editor(name)
    boxes = [(*n["pos"], n["pos"][0] + n["size"][0], n["pos"][1] + n["size"][1]) for n in graph["nodes"]]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] - 30 >= b[3] or b[1] - 30 >= a[3]
        inside = [
            g for g in graph["groups"]
            if g["bounding"][0] <= a[0] and a[2] <= g["bounding"][0] + g["bounding"][2]
            and g["bounding"][1] <= a[1] - 30 and a[3] <= g["bounding"][1] + g["bounding"][3]
        ]  # fmt: skip
        assert len(inside) == 1
    nodes = {n["id"]: n for n in graph["nodes"]}
    for number, source, output, target, entry, kind in graph["links"]:
        assert nodes[target]["inputs"][entry]["link"] == number
        assert number in nodes[source]["outputs"][output]["links"]
        assert kind in nodes[target]["inputs"][entry]["type"].split(",")
        assert nodes[source]["order"] < nodes[target]["order"]


@pytest.mark.parametrize("name", NAMES)
def test_the_server_accepts_all_but_the_placeholders(server, built, name):
    placeholders = built[name].placeholders
    status, reply = server.post("/prompt", {"prompt": api(name), "client_id": "tests"})
    if status == 200:
        server.post("/queue", {"delete": [reply["prompt_id"]]})
        while any(server.get("/queue").values()):
            server.post("/interrupt", {})
            time.sleep(0.1)
    errors = [e for found in reply["node_errors"].values() for e in found["errors"]]
    for error in errors:
        text = f"{error['message']} {error['details']}"
        assert error["type"] in ("value_not_in_list", "custom_validation_failed"), text
        assert any(p in text for p in placeholders), text
    named = {p for p in placeholders for e in errors if p in e["details"]}
    assert named == set(placeholders)
    assert (status == 200) == (not placeholders)


@pytest.mark.parametrize("name", NAMES)
def test_placeholders_are_explained_in_the_graph(built, name):
    notes = " ".join(n["widgets_values"][0] for n in editor(name)["nodes"] if n["type"] == "MarkdownNote")
    assert len(notes) > 200
    for placeholder in built[name].placeholders:
        assert placeholder in notes


def ready(name):
    """The API graph as a user with an SDXL checkpoint runs it: here a tiny one of the same architecture."""
    return json.loads(json.dumps(api(name)).replace("YOUR-SDXL-CHECKPOINT.safetensors", "tiny.safetensors"))


def outlined(graph):
    """What random weights draw has no outline: each picture of a start shows an object in its middle half."""
    for data in list(graph.values()):
        if data["inputs"].get("source") == "views":
            graph["empty"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}}
            graph["full"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 32, "height": 32}}
            placed = {"destination": ["empty", 0], "source": ["full", 0], "x": 16, "y": 16, "operation": "add"}
            graph["middle"] = {"class_type": "MaskComposite", "inputs": placed}
            data["inputs"]["source.masks"] = ["middle", 0]
    return graph


def test_most_run_without_any_file_of_the_user():
    found = {n for n in NAMES if "YOUR-" not in json.dumps(api(n))}
    assert found == {"text_to_3d_starter", "lora_swap", "ism_against_tsm", "splat_to_mesh", "splat_to_game_mesh",
                     "restyle_and_edit"}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in NAMES if "triposplat" not in n])  # its models are not to be had
def test_workflows_run(server, name):
    graph = ready(name)
    for data in graph.values():
        data["inputs"] |= SMALL.get(data["class_type"], {})
    entry = server.wait(server.queue(outlined(graph)), timeout=600)
    assert entry["status"]["status_str"] == "success", server.tail()
    files = [f for out in entry["outputs"].values() for f in out.get("3d", [])]
    kinds = [f["filename"].rpartition(".")[2] for f in files]
    exports = sum(d["class_type"] == "DreamerXLExport" for d in graph.values())
    assert kinds.count("ply") == exports
    assert kinds.count("glb") == sum(d["class_type"] == "SaveGLB" for d in graph.values())
    contents = [server.view(f) for f in files]
    assert len(set(contents)) == len(contents)  # two branches make two objects
    for kind, content in zip(kinds, contents):
        assert content.startswith({"ply": b"ply", "glb": b"glTF"}[kind])


def test_templates_are_offered_with_their_pictures(server):
    from PIL import Image

    assert sorted(server.get("/workflow_templates")["dreamer-xl"]) == NAMES
    for name in NAMES:
        picture = server.get(f"/api/workflow_templates/dreamer-xl/{name}.jpg")
        assert len(picture) < 100_000
        assert Image.open(io.BytesIO(picture)).size[0] >= 256
        assert server.get(f"/api/workflow_templates/dreamer-xl/{name}.json") == editor(name)
