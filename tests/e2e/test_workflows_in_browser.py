"""The example workflows in the real frontend: they open whole, say what their API copies say, and one runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_graphs import SMALL

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
    earlier = len(page.console())
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
    assert ours(page.console()[earlier:]) == []


OLD = FOLDER.parent / "tests" / "nodes" / "data" / "old_graphs"
SAVED = json.loads((OLD / "editor.json").read_text(encoding="utf-8"))
OLD_API = json.loads((OLD / "api.json").read_text(encoding="utf-8"))


def in_todays_words(graph):
    """An old API graph; the one switch that has become a choice of words was a Boolean."""
    for data in graph.values():
        if data["class_type"] == "DreamerXLDensityControl":
            data["inputs"]["enabled"] = "on" if data["inputs"]["enabled"] else "off"
    return graph


@pytest.mark.parametrize("way", ["workflow", "api"])
@pytest.mark.parametrize("name", SAVED)
@pytest.mark.usefixtures("classic")
def test_a_workflow_of_an_earlier_version_means_what_it_meant(page, comfy, name, way):
    """Its values stand by position; what today's nodes have more begins untouched."""
    wanted = in_todays_words(json.loads(json.dumps(OLD_API[name])))
    if way == "workflow":
        output = page.run(OPEN, SAVED[name])["output"]
    else:
        page.load_api(OLD_API[name])
        output = page.run("return (await app.graphToPrompt()).output;")
    known = comfy.get("/object_info")
    for number, data in wanted.items():
        found, spec = output[number]["inputs"], known[data["class_type"]]["input"]
        assert {k: found[k] for k in data["inputs"]} == data["inputs"]
        new = {**spec.get("required", {}), **spec.get("optional", {})}
        new = {k: v for k, v in new.items() if k in found and k not in data["inputs"]}
        assert {k: found[k] for k in new} == {k: described[1]["default"] for k, described in new.items()}
    shown = page.run(
        "return app.rootGraph.nodes.filter(n => n.type === 'DreamerXLDensityControl')"
        ".map(n => n.widgets.find(w => w.name === 'enabled').value);"
    )
    assert shown == [d["inputs"]["enabled"] for d in wanted.values() if d["class_type"] == "DreamerXLDensityControl"]


NOT_HERE = ("image_to_3d_triposplat", "triposplat_restyle", "text_to_3d_multiview")
"""The models of TripoSplat are not to be had, and six views by random weights show no object to start from."""


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOT_HERE])
@pytest.mark.usefixtures("classic")
def test_it_runs_from_the_editor(page, comfy, name):
    """With a tiny checkpoint of SDXL's architecture where the graph names the user's."""
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    graph = json.loads(text.replace("YOUR-SDXL-CHECKPOINT.safetensors", "tiny.safetensors"))
    earlier = len(page.console())
    page.run(OPEN, graph)
    page.run(
        "for (const node of app.rootGraph.nodes)"
        " for (const [name, value] of Object.entries($[0][node.type] ?? {}))"
        " for (const widget of node.widgets.filter(w => w.name === name)) widget.value = value;",
        SMALL,
    )
    before = set(comfy.get("/history"))
    page.queue()
    (run,) = page.wait("the run", lambda: set(comfy.get("/history")) - before)
    entry = comfy.wait(run)
    assert entry["status"]["status_str"] == "success", comfy.tail()
    files = [f for out in entry["outputs"].values() for f in out.get("3d", [])]
    splats = [comfy.view(f) for f in files if f["filename"].endswith(".ply")]
    assert len(splats) == sum(n["type"] == "DreamerXLExport" for n in graph["nodes"])
    assert all(b"element vertex 300\n" in splat.partition(b"end_header")[0] for splat in splats)
    for preview in (str(n["id"]) for n in graph["nodes"] if n["type"] == "DreamerXLPreview"):
        page.wait("the splat", lambda preview=preview: page.state(preview) == "result")
    page.screenshot(f"workflow-{name}")
    # So short a run may be over, and its snapshot freed, before the page has asked for it.
    assert [line for line in ours(page.console()[earlier:]) if "/snapshots/" not in line] == []
