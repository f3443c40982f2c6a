"""The example workflows in the real frontend: they open whole, say what their API copies say, and one runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(p.stem for p in FOLDER.glob("*.json"))
OPEN = """
await app.loadGraphData($[0]);
const count = $[0].nodes.length, later = () => new Promise(r => setTimeout(r, 50));
for (let i = 0; i < 40 && app.rootGraph.nodes.length < count; i++) await later();
const prompt = await app.graphToPrompt();
return {
    output: prompt.output,
    missing: app.rootGraph.nodes.filter(n => !(n.type in LiteGraph.registered_node_types)).map(n => n.type),
    boxes: app.rootGraph.nodes.map(n => [n.title, ...n.pos, ...n.size]),
    needed: app.rootGraph.nodes.map(n => n.computeSize()[1]),
    groups: app.rootGraph.groups.map(g => g.title),
};
"""


def ours(messages):
    """Errors that our extension logged, or that asking for our files gave."""
    marks = ("/extensions/dreamer-xl", "dreamerxl", "Dreamer")
    return [m["message"] for m in messages if m["level"] == "SEVERE" and any(mark in m["message"] for mark in marks)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("classic")
def test_it_opens_whole_and_means_what_its_api_copy_says(page, comfy, name):
    graph = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    wanted = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    opened = page.run(OPEN, graph)
    assert opened["missing"] == []
    known = comfy.get("/object_info")
    for data in opened["output"].values():  # what the frontend adds of its own never reaches a node
        spec = known[data["class_type"]]["input"]
        inputs = {**spec.get("required", {}), **spec.get("optional", {})}
        data["inputs"] = {k: v for k, v in data["inputs"].items() if k.partition(".")[0] in inputs}
    assert opened["output"] == wanted
    assert opened["groups"] == [g["title"] for g in graph["groups"]]
    for node, box, needed in zip(graph["nodes"], opened["boxes"], opened["needed"]):
        assert box[0] == node["title"]
        assert box[4] <= node["size"][1] + 4, f"{node['title']}: the editor makes it higher than the layout allows"
        assert needed <= node["size"][1] + 4
    assert ours(page.console()) == []


@pytest.mark.usefixtures("classic")
def test_the_starter_runs_from_the_editor(page, comfy):
    graph = json.loads((FOLDER / "text_to_3d_starter.json").read_text(encoding="utf-8"))
    page.run(OPEN, graph)
    small = {
        "Initialize": {"source.count": 300},
        "Optimize": {"steps": 2, "views": 1, "resolution": 64, "final_views": 2},
    }
    page.run(
        "for (const [title, values] of Object.entries($[0])) {"
        " const node = app.rootGraph.nodes.find(n => n.title === title);"
        " for (const [name, value] of Object.entries(values)) node.widgets.find(w => w.name === name).value = value; }",
        small,
    )
    before = set(comfy.get("/history"))
    page.queue()
    (run,) = page.wait("the run", lambda: set(comfy.get("/history")) - before)
    entry = comfy.wait(run)
    assert entry["status"]["status_str"] == "success", comfy.tail()
    (file,) = [f for out in entry["outputs"].values() for f in out.get("3d", [])]
    assert b"element vertex 300" in comfy.view(file)[:2000]
    preview = next(str(n["id"]) for n in graph["nodes"] if n["title"] == "Preview")
    page.wait("the splat", lambda: page.state(preview) == "result")
    page.screenshot("starter-workflow")
    # So short a run may be over, and its snapshot freed, before the page has asked for it.
    assert [line for line in ours(page.console()) if "/snapshots/" not in line] == []
