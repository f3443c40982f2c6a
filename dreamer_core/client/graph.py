"""An API graph, and the inputs in it that a client sets.

Names of inputs in messages are those of the options of examples/queue_workflow.py.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import Refused
from .node_types import CHOICE, SETTABLE, NodeTypes, choices, inputs_of, pick

Graph = dict[str, dict[str, Any]]
"""Node id -> `class_type` and `inputs`."""
CHECKPOINTS = {"DreamerXLLoader": "checkpoint", "CheckpointLoaderSimple": "ckpt_name"}
"""Nodes whose outputs 0 and 1 are MODEL and CLIP -> the input that names the file."""
PROMPTS = ("DreamerXLPrompt",)
OPTIMISERS = ("DreamerXLOptimize",)
LORA = "LoraLoader"
SEEDS = ("seed", "noise_seed")


# Reading
def read_graph(path: Path) -> Graph:
    """An API graph from a file. Errors: Refused."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: expected JSON in UTF-8, got other bytes ({error.reason}); save it as UTF-8") from error
    except RecursionError as error:
        raise Refused(f"{path}: expected an API graph, got JSON that is nested too deeply") from error
    except ValueError as error:
        raise Refused(f"{path}: expected JSON, got {error}; save the graph again with Export (API)") from error
    wrong = _not_a_graph(graph)
    if wrong:
        raise Refused(f"{path}: expected {wrong}")
    return graph


def _not_a_graph(graph: object) -> str:
    """What was expected, what came and what to do; empty where it is an API graph."""
    wanted = "an API graph (node id -> class_type and inputs)"
    remedy = "take a file of example_workflows/api, or Export (API) in ComfyUI"
    if not isinstance(graph, dict):
        return f"{wanted}, got {_type_name(graph)}; {remedy}"
    if isinstance(graph.get("nodes"), list):
        return "API format, got the editor's; take the file in api/, or Export (API) there"
    if not graph:
        return f"{wanted}, got an empty object; {remedy}"
    if isinstance(graph.get("prompt"), dict) and "class_type" not in graph["prompt"]:
        return f'{wanted}, got a request to the server; take the graph in its "prompt"'
    for node, data in graph.items():
        if not isinstance(data, dict):
            return f"{wanted}, got {_type_name(data)} as {node!r}; {remedy}"
        if not isinstance(data.get("class_type"), str):
            return f"{wanted}, got {_type_name(data.get('class_type'))} as class_type of {node!r}; {remedy}"
        if not isinstance(data.get("inputs"), dict):
            return f"{wanted}, got {_type_name(data.get('inputs'))} as inputs of {node!r}; {remedy}"
    return ""


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number")


# Names
def title(data: dict[str, Any]) -> str:
    """The node's title in the editor, else its type."""
    meta = data.get("_meta")
    found = meta.get("title") if isinstance(meta, dict) else None
    return found if found and isinstance(found, str) else data["class_type"]


def label(graph: Graph, node: str) -> str:
    """'Optimize (DreamerXLOptimize, node 4)'."""
    data = graph.get(node, {"class_type": "unknown"})
    name, kind = title(data), data["class_type"]
    return f"{name} ({kind}, node {node})" if name != kind else f"{kind} (node {node})"


def nodes_named(graph: Graph, name: str) -> list[str]:
    """Ids by id, title or type, in that order."""
    if name in graph:
        return [name]
    titled = [node for node, data in graph.items() if title(data).lower() == name.lower()]
    return titled or [node for node, data in graph.items() if data["class_type"].lower() == name.lower()]


def of_kind(graph: Graph, kinds: Iterable[str], option: str) -> list[str]:
    """Ids of the nodes of some types. Errors: Refused where the graph has none."""
    found = [node for node, data in graph.items() if data["class_type"] in kinds]
    if not found:
        raise Refused(f"{option}: the graph has no {' or '.join(kinds)}; see --list")
    return found


def is_link(value: object) -> bool:
    """Whether an input takes another node's output: [node id, index]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


# Setting
def changed(
    graph: Graph,
    known: NodeTypes,
    *,
    prompt: str | None = None,
    negative: str | None = None,
    seed: int | None = None,
    steps: int | None = None,
    checkpoint: str | None = None,
    loras: Iterable[str] = (),
    assignments: Iterable[str] = (),
) -> Graph:
    """A copy with other inputs; `loras` are NAME[:STRENGTH], `assignments` NODE.INPUT=VALUE. Errors: Refused."""
    graph = copy.deepcopy(graph)
    for name, value, kinds in (
        ("prompt", prompt, PROMPTS),
        ("negative", negative, PROMPTS),
        ("steps", steps, OPTIMISERS),
    ):
        if value is not None:
            for node in of_kind(graph, kinds, f"--{name}"):
                graph[node]["inputs"][name] = value
    if checkpoint is not None:
        for node in of_kind(graph, CHECKPOINTS, "--checkpoint"):
            kind = graph[node]["class_type"]
            field = CHECKPOINTS[kind]
            graph[node]["inputs"][field] = pick(checkpoint, choices(known, kind, field), "--checkpoint")
    set_loras(graph, [parse_lora(text) for text in loras], known)
    if seed is not None:
        for data in graph.values():
            for name in SEEDS:
                if name in data["inputs"] and not is_link(data["inputs"][name]):
                    data["inputs"][name] = seed
    for assignment in assignments:
        set_input(graph, assignment, known)
    return graph


def parse_lora(text: str) -> tuple[str, float]:
    """NAME or NAME:STRENGTH."""
    name, colon, strength = text.rpartition(":")
    if colon:
        try:
            return name, float(strength)
        except ValueError:
            pass
    return text, 1.0


def set_loras(graph: Graph, loras: list[tuple[str, float]], known: NodeTypes) -> None:
    """Each LoRA takes the place of a LoraLoader of the graph; further ones go in behind the checkpoint loaders."""
    offered = choices(known, LORA, "lora_name")
    settings = [
        {"lora_name": pick(name, offered, "--lora"), "strength_model": s, "strength_clip": s} for name, s in loras
    ]
    present = [node for node, data in graph.items() if data["class_type"] == LORA]
    for node, values in zip(present, settings):
        graph[node]["inputs"].update(values)
    for values in settings[len(present) :]:
        for loader in of_kind(graph, CHECKPOINTS, "--lora"):
            insert_lora(graph, loader, values)


def insert_lora(graph: Graph, loader: str, values: dict[str, Any]) -> None:
    """A LoraLoader between a checkpoint loader and everything behind it."""
    new = str(max((int(node) for node in graph if node.isdecimal()), default=0) + 1)
    for data in graph.values():
        for name, value in data["inputs"].items():
            if is_link(value) and value[0] == loader and value[1] in (0, 1):
                data["inputs"][name] = [new, value[1]]
    inputs = {"model": [loader, 0], "clip": [loader, 1], **values}
    graph[new] = {"class_type": LORA, "inputs": inputs, "_meta": {"title": "LoRA"}}


def set_input(graph: Graph, assignment: str, known: NodeTypes) -> None:
    """NODE.INPUT=VALUE; NODE is an id, a title or a type, and the input of a choice is dotted, too. Errors: Refused."""
    target, equals, text = assignment.partition("=")
    cuts = [i for i, character in enumerate(target) if character == "."]
    if not equals or not cuts:
        raise Refused(f"--set: expected NODE.input=value, got {assignment!r}")
    cut = next((i for i in cuts if nodes_named(graph, target[:i])), None)
    if cut is None:
        names = [title(data) for data in graph.values()]
        near = difflib.get_close_matches(target[: cuts[0]], names, 3, 0.4) or names
        raise Refused(f"--set: the graph has no node {target[: cuts[0]]!r}; did you mean {', '.join(near)}?")
    name = target[cut + 1 :]
    for node in nodes_named(graph, target[:cut]):
        values = graph[node]["inputs"]
        inputs = inputs_of(known, graph[node]["class_type"], values)
        if name not in inputs and name not in values:
            offered = list(inputs) or list(values)
            near = difflib.get_close_matches(name, offered, 3, 0.4) or offered
            raise Refused(f"--set: {label(graph, node)} has no input {name!r}; did you mean {', '.join(near)}?")
        values[name] = _parsed(text, inputs[name].kind if name in inputs else "")


def _parsed(text: str, kind: str) -> Any:
    """A value as JSON where the input takes no text."""
    if kind in ("STRING", "COMBO", CHOICE):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# Showing
def listing(graph: Graph, known: NodeTypes) -> Iterator[str]:
    """The nodes and what can be set on them, line by line."""
    for node, data in graph.items():
        yield label(graph, node)
        values, inputs = data["inputs"], inputs_of(known, data["class_type"], data["inputs"])
        for name in dict.fromkeys([*values, *inputs]):
            if is_link(values.get(name)) or (name not in values and inputs[name].kind not in SETTABLE):
                continue
            shown = json.dumps(values[name], ensure_ascii=False) if name in values else "(default)"
            allowed = inputs[name].allowed() if name in inputs else ""
            yield f"    {name} = {shown}{f'   {allowed}' if allowed else ''}"
