"""The subgraph blueprints: served by ComfyUI, and what the builder writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "subgraphs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def built():
    sys.path.append(str(ROOT))
    from tools.blueprints import all_blueprints

    return {blueprint.name: blueprint for blueprint in all_blueprints()}


def test_files_are_what_the_builder_writes(built, server):
    """After a change of a node's inputs: python -m tools.blueprints."""
    info = server.get("/object_info")
    assert set(NAMES) == set(built)
    for name in NAMES:
        assert json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) == built[name].data(info), name


def test_comfyui_serves_them(server):
    served = server.get("/global_subgraphs")
    ours = {key: entry for key, entry in served.items() if entry["info"]["node_pack"] == "custom_nodes.dreamer-xl"}
    assert sorted(entry["name"] for entry in ours.values()) == NAMES
    for key, entry in ours.items():
        data = json.loads(server.get(f"/global_subgraphs/{key}")["data"])
        (definition,) = data["definitions"]["subgraphs"]
        assert definition["name"] == entry["name"]
        assert data["nodes"][0]["type"] == definition["id"]


@pytest.mark.parametrize("name", NAMES)
def test_links_and_shown_widgets_meet_what_they_name(name):
    data = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    (inside,) = data["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in inside["nodes"]}
    for link in inside["links"]:
        if link["target_id"] == -20:
            assert inside["outputs"][link["target_slot"]]["linkIds"] == [link["id"]]
        else:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        if link["origin_id"] == -10:
            assert inside["inputs"][link["origin_slot"]]["linkIds"] == [link["id"]]
        else:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
    for number, widget in data["nodes"][0]["properties"]["proxyWidgets"]:
        assert widget in [i["name"] for i in nodes[int(number)]["inputs"] if "widget" in i]
