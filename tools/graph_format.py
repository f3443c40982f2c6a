"""One compact description of a graph -> ComfyUI's two JSON formats: the editor's and the API's.

Both are written from the same nodes and the server's own `/object_info`, so they cannot disagree. A layout is columns
from left to right, a column is groups from top to bottom, a group is nodes from top to bottom: nothing overlaps.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import Any

Info = dict[str, Any]
"""The reply of /object_info: node type -> its inputs and outputs."""

CHOICE = "COMFY_DYNAMICCOMBO_V3"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", CHOICE)
NOTE = "MarkdownNote"

# Pixels of the editor's canvas.
TITLE, SLOT, WIDGET, TEXT, MARGIN = 30, 20, 24, 90, 24
GAP = 40
"""Between two groups, and between the columns."""
NODE_GAP = 50
"""Between two nodes, the lower one's title included."""
GROUP_TITLE = 40

LATER = ("DreamerXLTeacherPreview",)
"""Kinds that came into graphs later: the others keep their numbers, which scripts know."""


@dataclass
class Node:
    """One node: its type, what it is called, its inputs by name (values, or a `Link`)."""

    kind: str
    title: str
    inputs: dict[str, Any]
    picture: int = 0
    """Height of what the node shows below its slots and widgets."""
    id: int = 0

    def __getitem__(self, output: int) -> Link:
        return Link(self, output)


@dataclass(frozen=True)
class Link:
    """An output of a node as the value of another's input."""

    node: Node
    output: int


@dataclass
class Group:
    """Nodes under one heading."""

    title: str
    nodes: list[Node]
    color: str = "#3f789e"


@dataclass
class Column:
    """Groups one above the other."""

    width: int
    groups: list[Group]


@dataclass
class Workflow:
    """A graph with its layout."""

    name: str
    columns: list[Column]
    thumbnail: str = "graph"
    """How `tools.thumbnails` makes its picture: "run" the graph, or a picture of the "graph" itself."""
    placeholders: dict[str, str] = field(default_factory=dict)
    """File names that a user must replace -> what they stand for."""

    def __post_init__(self) -> None:
        for number, node in enumerate(sorted(self.nodes, key=lambda n: (n.kind == NOTE, n.kind in LATER)), 1):
            node.id = number  # notes last: the API has none of them

    @property
    def nodes(self) -> list[Node]:
        return [n for column in self.columns for group in column.groups for n in group.nodes]

    # The API's format
    def api(self, info: Info) -> dict[str, Any]:
        """What POST /prompt takes. Errors: ValueError where an input is unknown to the server."""
        found = {}
        for node in self.nodes:
            if node.kind == NOTE:
                continue
            values = node_values(node, info)
            inputs = {k: [str(v.node.id), v.output] if isinstance(v, Link) else v for k, v in values.items()}
            found[str(node.id)] = {"class_type": node.kind, "inputs": inputs, "_meta": {"title": node.title}}
        return found

    # The editor's format
    def editor(self, info: Info) -> dict[str, Any]:
        """What the editor opens."""
        links: list[list[Any]] = []
        nodes = {node.id: self._node(node, info) for node in self.nodes}
        for node in self.nodes:
            for slot, entry in enumerate(nodes[node.id]["inputs"]):
                value = node.inputs.get(entry["name"])
                if not isinstance(value, Link):
                    continue
                number, source = len(links) + 1, nodes[value.node.id]["outputs"][value.output]
                links.append([number, value.node.id, value.output, node.id, slot, source["type"]])
                entry["link"] = number
                source["links"] = [*(source["links"] or []), number]
        groups = self._place(nodes)
        order = {n: i for i, n in enumerate(self._order())}
        for number, data in nodes.items():
            data["order"] = order[number]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"dreamer-xl/{self.name}")),
            "revision": 0,
            "last_node_id": max(nodes),
            "last_link_id": len(links),
            "nodes": list(nodes.values()),
            "links": links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [60, 120]}},
            "version": 0.4,
        }

    def _node(self, node: Node, info: Info) -> dict[str, Any]:
        frame = {"id": node.id, "type": node.kind, "pos": [0, 0], "size": [0, 0], "flags": {}, "order": 0, "mode": 0}
        if node.kind == NOTE:
            look = {"color": "#432", "bgcolor": "#653", "properties": {}}
            text = [node.inputs["text"]]
            frame["size"] = [0, _note_height(text[0])]
            return {**frame, "title": node.title, "inputs": [], "outputs": [], **look, "widgets_values": text}
        specs, values = input_specs(node, info), node_values(node, info)
        sockets = [name for name, spec in specs.items() if not is_widget(spec)]
        slots = [{"name": name, "type": specs[name][0], "link": None} for name in sockets]
        widgets = [name for name, spec in specs.items() if is_widget(spec)]
        slots += [{"name": n, "type": _slot_type(specs[n]), "widget": {"name": n}, "link": None} for n in widgets]
        written: list[Any] = []
        for name in widgets:
            written.append(values[name])
            if _controlled(name, specs[name]):
                written.append("fixed")
            if _options(specs[name]).get("image_upload"):
                written.append("image")
        about = info[node.kind]
        outputs = [{"name": n, "type": t, "links": None} for n, t in zip(about["output_name"], about["output"])]
        rows = _rows(node, {n: specs[n] for n in widgets}, values)
        frame["size"] = [0, SLOT * max(len(sockets), len(outputs)) + rows + 16]
        rest = {"properties": {"Node name for S&R": node.kind}, "widgets_values": written}
        return {**frame, "title": node.title, "inputs": slots, "outputs": outputs, **rest}

    def _order(self) -> list[int]:
        """Ids so that what feeds a node comes before it."""
        done: list[int] = []

        def visit(node: Node) -> None:
            if node.id in done:
                return
            for value in node.inputs.values():
                if isinstance(value, Link):
                    visit(value.node)
            done.append(node.id)

        for node in self.nodes:
            visit(node)
        return done

    def _place(self, nodes: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = []
        left = 0
        for column in self.columns:
            top = 0
            for group in column.groups:
                y = top + GROUP_TITLE + TITLE
                for node in group.nodes:
                    data = nodes[node.id]
                    height = data["size"][1] + node.picture
                    data["pos"], data["size"] = [left + MARGIN, y], [column.width, height]
                    y += height + NODE_GAP
                bottom = y - NODE_GAP + MARGIN
                box = [left, top, column.width + 2 * MARGIN, bottom - top]
                look = {"color": group.color, "font_size": 24, "flags": {}}
                groups.append({"id": len(groups) + 1, "title": group.title, "bounding": box, **look})
                top = bottom + GAP
            left += column.width + 2 * MARGIN + GAP
        return groups


def input_specs(node: Node, info: Info) -> dict[str, list[Any]]:
    """Input -> the server's description, those of the chosen options behind their choice. Errors: ValueError."""
    if node.kind not in info:
        raise ValueError(f"{node.title}: the server has no node {node.kind}")
    found: dict[str, list[Any]] = {}

    def add(inputs: dict[str, Any], prefix: str, order: dict[str, list[str]] | None = None) -> None:
        for part in ("required", "optional"):
            members = inputs.get(part) or {}
            for name in (order or {}).get(part, list(members)):
                full, spec = f"{prefix}{name}", members[name]
                found[full] = spec
                if spec[0] != CHOICE:
                    continue
                keys = {option["key"]: option["inputs"] for option in spec[1]["options"]}
                chosen = node.inputs.get(full, next(iter(keys)))
                if chosen not in keys:
                    raise ValueError(f"{node.title}: {full} offers {', '.join(keys)}, not {chosen!r}")
                add(keys[chosen], f"{full}.")

    add(info[node.kind]["input"], "", info[node.kind].get("input_order"))
    unknown = set(node.inputs) - set(found)
    if unknown:
        raise ValueError(f"{node.title}: {node.kind} has no input {', '.join(sorted(unknown))}")
    return found


def node_values(node: Node, info: Info) -> dict[str, Any]:
    """Every input that has a value: what is given, and the defaults of the widgets. Errors: ValueError."""
    found = {}
    for name, spec in input_specs(node, info).items():
        if name in node.inputs:
            found[name] = node.inputs[name]
        elif is_widget(spec):
            found[name] = _default(node, name, spec)
    return found


def is_widget(spec: list[Any]) -> bool:
    return (isinstance(spec[0], list) or spec[0] in WIDGETS) and not _options(spec).get("forceInput")


def _options(spec: list[Any]) -> dict[str, Any]:
    return spec[1] if len(spec) > 1 else {}


def _controlled(name: str, spec: list[Any]) -> bool:
    """Whether the editor adds the choice between a fixed and a new value after each run."""
    return bool(_options(spec).get("control_after_generate")) or (name in ("seed", "noise_seed") and spec[0] == "INT")


def _slot_type(spec: list[Any]) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _default(node: Node, name: str, spec: list[Any]) -> Any:
    options = _options(spec)
    if "default" in options:
        return options["default"]
    if spec[0] == CHOICE:
        return options["options"][0]["key"]
    offered = spec[0] if isinstance(spec[0], list) else options.get("options", [])
    if offered:
        return offered[0]
    empty = {"STRING": "", "INT": 0, "FLOAT": 0.0, "BOOLEAN": False}
    if spec[0] not in empty:
        raise ValueError(f"{node.title}: {name} needs a value, for the server offers none")
    return empty[spec[0]]


def _note_height(text: str) -> int:
    """What the editor needs for a note's lines."""
    return 50 + 21 * sum(max(1, math.ceil(len(line) / 50)) for line in text.splitlines())


def _rows(node: Node, widgets: dict[str, list[Any]], values: dict[str, Any]) -> int:
    """Height of a node's widgets; in nodes of ours those that are advanced are folded behind a button."""
    height, folded = 0, False
    for name, spec in widgets.items():
        options, value = _options(spec), values[name]
        if node.kind.startswith("DreamerXL") and options.get("advanced") and not isinstance(value, Link):
            folded = True
            continue
        height += TEXT if options.get("multiline") else WIDGET
        height += WIDGET * (_controlled(name, spec) + bool(options.get("image_upload")))
    return height + WIDGET * folded
