"""Writes subgraphs/*.json: graphs that ComfyUI's menu offers as one node each.

python -m tools.blueprints                       # starts the prepared ComfyUI for its /object_info
python -m tools.blueprints --server HOST:PORT    # asks a running one

ComfyUI serves `custom_nodes/*/subgraphs/*.json`; the file's name is the node's. Such a file is a workflow of one node
with the definition of its inside.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import comfyui
from .graph_format import Column, Group, Info, Link, Node, Workflow
from .workflows import STARTER, VIEWER, export, images, loader, optimizer, starter_prompt, starter_start

FOLDER = comfyui.ROOT / "subgraphs"
CATEGORY = "3d/dreamer xl"
INPUTS, OUTPUTS = -10, -20
"""Ids that the editor gives the two ends of a subgraph."""
EDGE = 200
"""Pixels between the ends and the nodes."""


@dataclass
class Blueprint:
    """A graph as one node: what it shows of the nodes inside, what it takes and what it gives."""

    name: str
    description: str
    columns: list[Column]
    widgets: list[tuple[Node, str, str]]
    """Node, widget, and what it is called outside; an empty word keeps its name."""
    takes: dict[str, tuple[Node, str]] = field(default_factory=dict)
    """Name -> node and input inside."""
    gives: dict[str, Link] = field(default_factory=dict)
    """Name -> output inside."""

    def data(self, info: Info) -> dict[str, Any]:
        """The file's content."""
        inside = Workflow(self.name, self.columns).editor(info)
        nodes = {node["id"]: node for node in inside["nodes"]}
        links = [_link(*link) for link in inside["links"]]
        for node, widget, label in self.widgets:
            entry = next(i for i in nodes[node.id]["inputs"] if i["name"] == widget)
            entry.update({"label": label} if label else {})
        ends: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        for slot, (name, (node, entry_name)) in enumerate(self.takes.items()):
            target = next(i for i, one in enumerate(nodes[node.id]["inputs"]) if one["name"] == entry_name)
            entry = nodes[node.id]["inputs"][target]
            entry["link"] = len(links) + 1
            links.append(_link(entry["link"], INPUTS, slot, node.id, target, entry["type"]))
            ends["inputs"].append(self._end("in", name, entry["type"], entry["link"]))
        for slot, (name, link) in enumerate(self.gives.items()):
            source = nodes[link.node.id]["outputs"][link.output]
            number = len(links) + 1
            source["links"] = [*(source["links"] or []), number]
            links.append(_link(number, link.node.id, link.output, OUTPUTS, slot, source["type"]))
            ends["outputs"].append(self._end("out", name, source["type"], number))
        identity = self._id("definition")
        right = max(n["pos"][0] + n["size"][0] for n in nodes.values())
        definition = {
            "id": identity, "version": 1, "revision": 0, "config": {}, "name": self.name,
            "state": {"lastGroupId": len(inside["groups"]), "lastNodeId": inside["last_node_id"],
                      "lastLinkId": len(links), "lastRerouteId": 0},
            "inputNode": {"id": INPUTS, "bounding": [-EDGE, 0, 120, 60]},
            "outputNode": {"id": OUTPUTS, "bounding": [right + EDGE, 0, 120, 60]},
            **ends, "widgets": [], "nodes": list(nodes.values()), "groups": inside["groups"], "links": links,
            "extra": {}, "category": CATEGORY, "description": self.description,
        }  # fmt: skip
        outer = {
            "id": inside["last_node_id"] + 1, "type": identity, "title": self.name, "pos": [0, 0],
            "size": [420, 120 + 40 * len(self.widgets)], "flags": {}, "order": 0, "mode": 0,
            "inputs": [{"name": i["name"], "type": i["type"], "link": None} for i in ends["inputs"]],
            "outputs": [{"name": o["name"], "type": o["type"], "links": []} for o in ends["outputs"]],
            "properties": {"proxyWidgets": [[str(node.id), widget] for node, widget, _ in self.widgets]},
            "widgets_values": [],
        }  # fmt: skip
        return {
            "revision": 0, "last_node_id": outer["id"], "last_link_id": 0, "nodes": [outer], "links": [],
            "version": 0.4, "definitions": {"subgraphs": [definition]}, "extra": {},
        }  # fmt: skip

    def _id(self, word: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"dreamer-xl/blueprints/{self.name}/{word}"))

    def _end(self, side: str, name: str, kind: str, link: int) -> dict[str, Any]:
        return {"id": self._id(f"{side}/{name}"), "name": name, "type": kind, "linkIds": [link], "pos": [0, 0]}


def _link(number: int, source: int, output: int, target: int, entry: int, kind: str) -> dict[str, Any]:
    return {"id": number, "origin_id": source, "origin_slot": output, "target_id": target, "target_slot": entry,
            "type": kind}  # fmt: skip


def text_to_3d() -> Blueprint:
    model = loader(STARTER)
    said = starter_prompt(model[1], "a red mushroom")
    start = starter_start()
    made = optimizer(model[0], model[2], said[0], start[0], "starter")
    kept = export(made[0], "text-to-3d")
    return Blueprint(
        "Text to 3D (Dreamer XL)",
        "A Gaussian splat from a prompt, saved in the output folder. With your SDXL checkpoint choose the preset fast, "
        "official or low_vram, and empty overhead: it holds the starter's words for the height.",
        [Column(360, [Group("What to make", [model, said, start])]), Column(420, [Group("Make", [made, kept])])],
        [(model, "checkpoint", ""), (said, "prompt", ""), (said, "overhead", ""), (made, "preset", ""),
         (made, "steps", ""), (made, "seed", ""), (kept, "filename_prefix", ""), (kept, "format", "")],
        gives={"splat": made[0], "views": made[1]},
    )  # fmt: skip


def compare() -> Blueprint:
    model = loader(STARTER)
    said = starter_prompt(model[1], "a green tree")
    start = starter_start()
    ways = [Node("DreamerXLTSMGuidance", f"Guidance {x}", {"method": m}) for x, m in (("A", "ism"), ("B", "tsm"))]
    made = [
        optimizer(model[0], model[2], said[0], start[0], "starter", f"Optimize {x}", guidance=way[0])
        for x, way in zip("AB", ways)
    ]
    shown = [
        Node("DreamerXLRender", f"Render {x}", {"splat": one[0], "path": "turntable", "path.frames": 4})
        for x, one in zip("AB", made)
    ]
    both = Node("ImageStitch", "Side by side", {"image1": shown[0][0], "image2": shown[1][0], "direction": "right"})
    return Blueprint(
        "Compare two settings (Dreamer XL)",
        "The same words, start and seed with two methods or numbers of steps: A left, B right in the pictures.",
        [
            Column(360, [Group("What to make", [model, said, start])]),
            Column(360, [Group("Settings", ways)]),
            Column(420, [Group("Make", made)]),
            Column(420, [Group("Look: A left, B right", [*shown, both, images(both[0], "A left, B right")])]),
        ],
        [(model, "checkpoint", ""), (said, "prompt", ""), (said, "overhead", "")]
        + [(way, "method", f"method {x}") for x, way in zip("AB", ways)]
        + [(one, "preset", f"preset {x}") for x, one in zip("AB", made)]
        + [(one, "steps", f"steps {x}") for x, one in zip("AB", made)]
        + [(one, "seed", f"seed {x}") for x, one in zip("AB", made)],
        gives={"pictures": both[0], "splat A": made[0][0], "splat B": made[1][0]},
    )


def _change(kind: str, name: str, about: str, words: dict[str, str]) -> Blueprint:
    """Restyle or Edit of a splat that comes in."""
    model = loader(STARTER)
    parts = {"model": model[0], "clip": model[1], "vae": model[2], "preset": "starter"}
    made = Node(f"DreamerXL{kind}", kind, {**parts, **words}, VIEWER)
    kept = export(made[0], kind.lower())
    return Blueprint(
        name,
        about,
        [Column(360, [Group("Model", [model])]), Column(420, [Group(kind, [made]), Group("Keep", [kept])])],
        [(model, "checkpoint", ""), *((made, word, "") for word in words), (made, "strength", ""), (made, "preset", ""),
         (made, "seed", ""), (kept, "filename_prefix", "")],
        takes={"splat": (made, "splat")},
        gives={"splat": made[0]},
    )  # fmt: skip


def restyle() -> Blueprint:
    about = "A splat in the style of a checkpoint, of LoRAs and of a prompt; what it shows stays."
    return _change("Restyle", "Restyle a splat (Dreamer XL)", about, {"prompt": "a red mushroom"})


def edit() -> Blueprint:
    about = "A splat changed by words: what it is, and what it should be."
    words = {"source": "a red mushroom", "prompt": "a blue mushroom"}
    return _change("Edit", "Edit a splat (Dreamer XL)", about, words)


def all_blueprints() -> list[Blueprint]:
    return [text_to_3d(), restyle(), edit(), compare()]


def write(blueprint: Blueprint, info: Info, folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(blueprint.data(info), indent=1, ensure_ascii=False) + "\n"
    (folder / f"{blueprint.name}.json").write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    info = comfyui.described(__doc__)
    for blueprint in all_blueprints():
        write(blueprint, info)
        print(blueprint.name)


if __name__ == "__main__":
    main()
