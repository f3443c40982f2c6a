"""Subgraph blueprints in the real frontend: the menu offers each as one node, which runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.json"))
OFFERED = """
const stores = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s;
return (stores.get('subgraph')?.subgraphBlueprints ?? []).map(n => n.display_name);
"""
PLACE = """
await app.loadGraphData($[0]);
for (let i = 0; i < 100 && !app.rootGraph.nodes.length; i++) await new Promise(r => setTimeout(r, 50));
await new Promise(r => setTimeout(r, 500));
const [node] = app.rootGraph.nodes;
return {
    count: app.rootGraph.nodes.length,
    title: node.title,
    shown: (node.widgets ?? []).map(w => w.label || w.name),
    takes: (node.inputs ?? []).filter(i => !i.widget).map(i => i.name),
    gives: node.outputs.map(o => o.name),
};
"""
SMALL = {
    "DreamerXLInitialize": {"source.count": 300, "source.opacity": 0.9},
    "DreamerXLOptimize": {"steps": 2, "views": 1, "resolution": 64, "final_views": 2},
    "DreamerXLRestyle": {"steps": 2},
    "DreamerXLEdit": {"steps": 2},
    "DreamerXLRender": {"path.frames": 2, "resolution": 64},
}
"""Values of widgets inside, by the node's type."""
SHOWN = {
    "Text to 3D (Dreamer XL)": ["checkpoint", "prompt", "preset", "steps", "seed", "filename_prefix", "format"],
    "Restyle a splat (Dreamer XL)": ["checkpoint", "prompt", "strength", "preset", "seed", "filename_prefix"],
    "Edit a splat (Dreamer XL)": ["checkpoint", "source", "prompt", "strength", "preset", "seed", "filename_prefix"],
    "Compare two settings (Dreamer XL)": ["checkpoint", "prompt", "method A", "method B", "preset A", "preset B",
                                          "steps A", "steps B", "seed A", "seed B"],
}  # fmt: skip


def blueprint(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("classic")
def test_the_menu_offers_them(page):
    offered = page.wait("the blueprints", lambda: [n for n in page.run(OFFERED) if "Dreamer" in n])
    assert sorted(offered) == NAMES == sorted(SHOWN)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("classic")
def test_it_is_one_node_with_what_people_change_and_runs(page, comfy, name):
    placed = page.run(PLACE, blueprint(name))
    assert placed["count"] == 1
    assert placed["title"] == name
    assert [w for w in placed["shown"] if w in SHOWN[name]] == SHOWN[name]
    assert placed["takes"] == (["splat"] if "splat (" in name else [])
    if "splat (" in name:
        # A splat of the plainest kind, in front of it.
        page.run(
            "const start = LiteGraph.createNode('DreamerXLInitialize'); app.rootGraph.add(start);"
            "start.connect(0, app.rootGraph.nodes.find(n => n !== start), 0);"
        )
    page.run(
        "const set = graph => { for (const node of graph.nodes) { if (node.subgraph) set(node.subgraph);"
        " for (const [name, value] of Object.entries($[0][node.type] ?? {}))"
        " for (const widget of node.widgets.filter(w => w.name === name)) widget.value = value; } };"
        "set(app.rootGraph);"
        # What the node shows is the node's own value, not that of the widget inside.
        "for (const node of app.rootGraph.nodes) for (const widget of node.widgets ?? [])"
        " if (/^steps/.test(widget.label || widget.name)) widget.value = 2;",
        SMALL,
    )
    page.screenshot(f"blueprint-{name}")
    before = set(comfy.get("/history"))
    page.queue()
    (run,) = page.wait("the run", lambda: set(comfy.get("/history")) - before)
    entry = comfy.wait(run)
    assert entry["status"]["status_str"] == "success", comfy.tail()
    kinds = {kind for out in entry["outputs"].values() for kind in out}
    assert "images" in kinds
    assert ("3d" in kinds) == ("Compare" not in name)
