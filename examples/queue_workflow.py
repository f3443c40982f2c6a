#!/usr/bin/env python3
"""Queue an API graph on a ComfyUI server, watch it, and download what it makes.

    python examples/queue_workflow.py example_workflows/api/text_to_3d_starter.json --prompt "a blue rocket" --seed 7
    python examples/queue_workflow.py GRAPH.json --checkpoint sdxl.safetensors --lora style.safetensors:0.8
    python examples/queue_workflow.py GRAPH.json --set Optimize.steps=80 --set Guidance.method.gamma=0.3
    python examples/queue_workflow.py GRAPH.json --list

Python 3.10 and its standard library are enough. With `websocket-client` the steps are shown as they are made, with
`rich` as a bar. Exit codes: 0 done, 1 the run failed, 2 the graph or an option is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import json
import shutil
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

Graph = dict[str, dict[str, Any]]

CHECKPOINTS = {"DreamerXLLoader": "checkpoint", "CheckpointLoaderSimple": "ckpt_name"}
"""Nodes whose outputs 0 and 1 are MODEL and CLIP -> the input that names the file."""
PROMPTS = ("DreamerXLPrompt",)
OPTIMISERS = ("DreamerXLOptimize",)
LORA = "LoraLoader"
SEEDS = ("seed", "noise_seed")
SETTABLE = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
POLL = 0.5
"""Seconds between two questions to the server."""
PATIENCE = 30.0
"""Seconds without an answer after which the server counts as gone."""
STOPPING = 10.0
"""Seconds in which a run that was stopped should have left the queue."""


class Refused(Exception):
    """What the user gave, or the server's answer to it, is wrong; the message says what to do."""


class Failed(Exception):
    """The run ended without a result."""


# The server
class Server:
    """The few routes of ComfyUI's API that a client needs."""

    def __init__(self, address: str) -> None:
        address = address if "://" in address else f"http://{address}"
        self.url = address.rstrip("/")
        self.client = uuid.uuid4().hex

    def open(self, path: str, body: dict[str, Any] | None = None, /, **query: str) -> Any:
        """The open reply of a GET, or of a POST with a body. Errors: Refused where nobody answers."""
        url = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
        try:
            return urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            raise self._silent(error) from error

    def _silent(self, error: OSError) -> Refused:
        why = getattr(error, "reason", error)
        return Refused(f"no ComfyUI answers at {self.url} ({why}); start it, or name another with --server HOST:PORT")

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:
        with self.open(path, body) as reply:
            try:
                text = reply.read()
            except OSError as error:
                raise self._silent(error) from error
        return json.loads(text) if text else None

    def nodes(self) -> dict[str, Any]:
        """Every node type that the server knows."""
        return self.json("/object_info")

    def queue(self, graph: Graph, run: str) -> str:
        """The id of the queued run: `run`, a UUID, but on an old server. Errors: Refused, a line per wrong input."""
        try:
            reply = self.json("/prompt", {"prompt": graph, "client_id": self.client, "prompt_id": run})
        except urllib.error.HTTPError as error:
            reply = json.loads(error.read() or b"{}")
            raise Refused(node_errors(graph, reply)) from error
        if reply.get("node_errors"):  # some outputs would be made and others not: all or nothing
            self.cancel(reply["prompt_id"])
            raise Refused(node_errors(graph, reply))
        return reply["prompt_id"]

    def cancel(self, run: str) -> None:
        """Take a run out of the queue, or stop it."""
        try:
            self.json(f"/api/jobs/{run}/cancel", {})
        except urllib.error.HTTPError:  # a ComfyUI without that route
            self.json("/queue", {"delete": [run]})
            self.json("/interrupt", {"prompt_id": run})

    def stop(self, run: str) -> None:
        """Cancel a run until it has ended: ComfyUI forgets what comes as a run starts. Errors: Failed."""
        deadline = time.monotonic() + STOPPING
        try:
            while True:
                self.cancel(run)
                time.sleep(POLL)
                if self.place(run) is None or time.monotonic() > deadline:
                    return
        except (Refused, urllib.error.HTTPError) as error:
            raise Failed(f"interrupted, but {self.url} does not answer: the run may go on there") from error

    def history(self, run: str) -> dict[str, Any] | None:
        """The entry of a finished run."""
        return self.json(f"/history/{run}").get(run)

    def place(self, run: str) -> int | None:
        """0 while it runs, else the number of runs up to it in the queue; None where it is in neither list."""
        state = self.json("/queue")
        if any(item[1] == run for item in state["queue_running"]):
            return 0
        waiting = sorted(state["queue_pending"])
        return next((i + 1 for i, item in enumerate(waiting) if item[1] == run), None)

    def download(self, place: dict[str, str], path: Path) -> None:
        """One file of an output, whole or not at all."""
        query = {k: place.get(k, "") for k in ("filename", "subfolder", "type")}
        temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:8]}.part")
        try:
            with self.open("/view", **query) as reply, temporary.open("wb") as file:
                shutil.copyfileobj(reply, file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def label(graph: Graph, node: str) -> str:
    """'Optimize (DreamerXLOptimize, node 4)'."""
    found = graph.get(node, {})
    kind = found.get("class_type", "unknown")
    title = found.get("_meta", {}).get("title") or kind
    return f"{title} ({kind}, node {node})" if title != kind else f"{kind} (node {node})"


def node_errors(graph: Graph, reply: dict[str, Any]) -> str:
    """The answer of /prompt to a graph that it refuses, one line per wrong input."""
    lines = []
    for node, found in (reply.get("node_errors") or {}).items():
        for error in found.get("errors", []):
            extra = error.get("extra_info") or {}
            field = extra.get("input_name") or ""
            text = ": ".join(t for t in (error.get("message", ""), error.get("details", "")) if t)
            lines.append(f"  {label(graph, node)}{f', {field}' if field else ''}: {text}")
            options = (extra.get("input_config") or [None])[0]
            if error.get("type") == "value_not_in_list" and isinstance(options, list) and len(options) > 12:
                lines.append(f"    the server has {len(options)}, e.g. {', '.join(map(str, options[:5]))}")
    error = reply.get("error") or {}
    head = error.get("message", "it refused the graph") if isinstance(error, dict) else str(error)
    details = error.get("details", "") if isinstance(error, dict) and not lines else ""
    return "\n".join([f"ComfyUI refused the graph: {head}{f' ({details})' if details else ''}", *lines])


# The graph
def read_graph(path: Path) -> Graph:
    """An API graph from a file. Errors: Refused."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{path}: expected JSON, got {error}") from error
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise Refused(f"{path}: expected API format, got the editor's; take the file in api/, or Export (API) there")
    if not isinstance(graph, dict) or not all(isinstance(n, dict) and "class_type" in n for n in graph.values()):
        raise Refused(f"{path}: expected an API graph: node id -> class_type and inputs")
    return graph


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def of_kind(graph: Graph, kinds: tuple[str, ...], option: str) -> list[str]:
    """Ids of the nodes of some types. Errors: Refused where the graph has none."""
    found = [node for node, data in graph.items() if data["class_type"] in kinds]
    if not found:
        raise Refused(f"{option}: the graph has no {' or '.join(kinds)}; see --list")
    return found


def choices(known: dict[str, Any], kind: str, name: str) -> list[str]:
    """What a list input offers on this server."""
    inputs = known.get(kind, {}).get("input", {})
    spec = {**inputs.get("required", {}), **inputs.get("optional", {})}.get(name) or [[]]
    offered = spec[1].get("options", []) if spec[0] == "COMBO" and len(spec) > 1 else spec[0]
    return [str(o) for o in offered] if isinstance(offered, list) else []


def pick(wanted: str, offered: list[str], option: str) -> str:
    """The choice that was meant: exact, or the only one with that beginning or file name. Errors: Refused."""
    if wanted in offered:
        return wanted
    low = wanted.lower()
    for same in (
        lambda o: PurePosixPath(o.replace("\\", "/")).name.lower() in (low, f"{low}.safetensors"),
        lambda o: o.lower().startswith(low),
    ):
        found = [o for o in offered if same(o)]
        if len(found) == 1:
            return found[0]
    near = difflib.get_close_matches(wanted, offered, 5, 0.4) or offered[:5]
    raise Refused(f"{option}: the server has no {wanted!r}; it has e.g. {', '.join(near) or 'nothing at all'}")


def parse_lora(text: str) -> tuple[str, float]:
    """NAME or NAME:STRENGTH."""
    name, colon, strength = text.rpartition(":")
    if colon:
        try:
            return name, float(strength)
        except ValueError:
            pass
    return text, 1.0


def set_loras(graph: Graph, loras: list[tuple[str, float]], known: dict[str, Any]) -> None:
    """Each LoRA takes the place of a LoraLoader of the graph; further ones go in behind the checkpoint loaders."""
    offered = choices(known, LORA, "lora_name")
    settings = [
        {"lora_name": pick(name, offered, "--lora"), "strength_model": s, "strength_clip": s} for name, s in loras
    ]
    present = [node for node, data in graph.items() if data["class_type"] == LORA]
    for node, values in zip(present, settings):
        graph[node]["inputs"].update(values)
    for values in settings[len(present) :]:
        for loader in of_kind(graph, tuple(CHECKPOINTS), "--lora"):
            insert_lora(graph, loader, values)


def insert_lora(graph: Graph, loader: str, values: dict[str, Any]) -> None:
    """A LoraLoader between a checkpoint loader and everything behind it."""
    new = str(max((int(n) for n in graph if n.isdecimal()), default=0) + 1)
    for data in graph.values():
        for name, value in data["inputs"].items():
            if is_link(value) and value[0] == loader and value[1] in (0, 1):
                data["inputs"][name] = [new, value[1]]
    inputs = {"model": [loader, 0], "clip": [loader, 1], **values}
    graph[new] = {"class_type": LORA, "inputs": inputs, "_meta": {"title": "LoRA"}}


def nodes_named(graph: Graph, name: str) -> list[str]:
    """Ids by id, title or type, in that order."""
    if name in graph:
        return [name]
    titled = [n for n, d in graph.items() if d.get("_meta", {}).get("title", "").lower() == name.lower()]
    return titled or [n for n, d in graph.items() if d["class_type"].lower() == name.lower()]


def set_input(graph: Graph, assignment: str, known: dict[str, Any]) -> None:
    """NODE.input=value; NODE is an id, a title or a type, and the input of a choice is dotted, too. Errors: Refused."""
    target, equals, text = assignment.partition("=")
    cuts = [i for i, c in enumerate(target) if c == "."]
    if not equals or not cuts:
        raise Refused(f"--set: expected NODE.input=value, got {assignment!r}")
    cut = next((i for i in cuts if nodes_named(graph, target[:i])), None)
    if cut is None:
        names = [d.get("_meta", {}).get("title") or d["class_type"] for d in graph.values()]
        near = difflib.get_close_matches(target[: cuts[0]], names, 3, 0.4) or names
        raise Refused(f"--set: the graph has no node {target[: cuts[0]]!r}; did you mean {', '.join(near)}?")
    name = target[cut + 1 :]
    for node in nodes_named(graph, target[:cut]):
        data = graph[node]
        spec = input_specs(known, data).get(name)
        if spec is None and name not in data["inputs"]:
            offered = list(input_specs(known, data)) or list(data["inputs"])
            near = difflib.get_close_matches(name, offered, 3, 0.4) or offered
            raise Refused(f"--set: {label(graph, node)} has no input {name!r}; did you mean {', '.join(near)}?")
        data["inputs"][name] = parsed(text, spec[0] if spec else None)


def parsed(text: str, kind: object) -> Any:
    """A value as JSON where the input takes no text."""
    if kind == "STRING" or kind == "COMBO" or isinstance(kind, list):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def input_specs(known: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Input -> its description by the server, those of the chosen options included."""
    found: dict[str, Any] = {}

    def add(inputs: dict[str, Any], prefix: str) -> None:
        for part in ("required", "optional"):
            for name, spec in (inputs.get(part) or {}).items():
                full = f"{prefix}{name}"
                found[full] = spec
                if spec[0] == "COMFY_DYNAMICCOMBO_V3":
                    chosen = data["inputs"].get(full)
                    for option in spec[1]["options"]:
                        if option["key"] == chosen:
                            add(option["inputs"], f"{full}.")

    add(known.get(data["class_type"], {}).get("input", {}), "")
    return found


def listing(graph: Graph, known: dict[str, Any]) -> Iterator[str]:
    """The nodes and what can be set on them."""
    for node, data in graph.items():
        yield label(graph, node)
        specs = input_specs(known, data)
        for name in dict.fromkeys([*data["inputs"], *specs]):
            value, spec = data["inputs"].get(name), specs.get(name)
            if is_link(value) or (name not in data["inputs"] and spec and spec[0] not in SETTABLE):
                continue
            shown = json.dumps(value, ensure_ascii=False) if name in data["inputs"] else "(default)"
            yield f"    {name} = {shown}{_allowed(spec)}"


def _allowed(spec: list[Any] | None) -> str:
    """The range or the choices of an input."""
    if spec is None:
        return ""
    options = spec[1] if len(spec) > 1 else {}
    if spec[0] == "COMFY_DYNAMICCOMBO_V3":
        return f"   [{', '.join(o['key'] for o in options['options'])}]"
    offered = options.get("options", []) if spec[0] == "COMBO" else spec[0] if isinstance(spec[0], list) else []
    if offered:
        return f"   [{', '.join(map(str, offered[:8]))}{', ...' if len(offered) > 8 else ''}]"
    if "min" in options and "max" in options:
        return f"   {options['min']} to {options['max']}"
    return ""


def changed(graph: Graph, options: argparse.Namespace, known: dict[str, Any]) -> Graph:
    """The graph with the options of the command line. Errors: Refused."""
    graph = copy.deepcopy(graph)
    for name, value in (("prompt", options.prompt), ("negative", options.negative)):
        if value is not None:
            for node in of_kind(graph, PROMPTS, f"--{name}"):
                graph[node]["inputs"][name] = value
    if options.checkpoint is not None:
        for node in of_kind(graph, tuple(CHECKPOINTS), "--checkpoint"):
            kind = graph[node]["class_type"]
            field = CHECKPOINTS[kind]
            graph[node]["inputs"][field] = pick(options.checkpoint, choices(known, kind, field), "--checkpoint")
    if options.lora:
        set_loras(graph, [parse_lora(text) for text in options.lora], known)
    if options.steps is not None:
        for node in of_kind(graph, OPTIMISERS, "--steps"):
            graph[node]["inputs"]["steps"] = options.steps
    if options.seed is not None:
        for data in graph.values():
            for name in SEEDS:
                if name in data["inputs"] and not is_link(data["inputs"][name]):
                    data["inputs"][name] = options.seed
    for assignment in options.set:
        set_input(graph, assignment, known)
    return graph


# What happens
class Steps:
    """Listens to the server's socket, where `websocket-client` is installed: how far which node is."""

    def __init__(self, server: Server, run: Callable[[], str]) -> None:
        self.done, self.total, self.node, self.text = 0, 0, "", ""
        self._run = run
        self._socket: Any = None
        try:
            import websocket
        except ImportError:
            return
        address = server.url.replace("http", "ws", 1)
        try:
            self._socket = websocket.create_connection(f"{address}/ws?clientId={server.client}", timeout=10)
            self._socket.settimeout(None)
        except (OSError, websocket.WebSocketException):
            self._socket = None
            return
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                message = self._socket.recv()
                if isinstance(message, str):
                    self._event(json.loads(message))
                elif message[:4] == b"\0\0\0\3":  # a line of text on a node: length of the id, the id, the text
                    length = int.from_bytes(message[4:8], "big")
                    self.text = message[8 + length :].decode(errors="replace")
        except Exception:  # the end of a connection has many names, and the poll goes on without it
            return

    def _event(self, event: dict[str, Any]) -> None:
        data = event.get("data") or {}
        if event.get("type") != "progress_state" or data.get("prompt_id") != self._run():
            return
        running = [(n, s) for n, s in data["nodes"].items() if s.get("state") == "running"]
        if running:
            node, state = max(running, key=lambda pair: pair[1].get("max", 0))
            self.node, self.done, self.total = node, int(state["value"]), int(state["max"])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.abort()  # `close` waits for the listening thread, and that for the server


class Display:
    """A bar with `rich`, else a line that is rewritten on a terminal and repeated rarely in a file."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._began, self._last, self._bar = quiet, time.monotonic(), "", None
        if quiet or not sys.stderr.isatty():
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        except ImportError:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("waiting", total=None, steps="")
        self._bar.start()

    def show(self, what: str, done: int = 0, total: int = 0) -> None:
        """`what` is happening, `done` of `total`."""
        count = f"{done}/{total}" if total > 1 else ""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, description=what, completed=done, total=total or None, steps=count)
            return
        seconds = int(time.monotonic() - self._began)
        if sys.stderr.isatty():
            line = f"{seconds // 60}:{seconds % 60:02} {what} {count}"
            print(f"\r{line[:110]:<110}", end="", file=sys.stderr, flush=True)
            return
        key = f"{what.split(',')[0]} {done * 10 // total if total else ''}"
        if key != self._last:
            print(f"{seconds // 60}:{seconds % 60:02} {what} {count}".rstrip(), file=sys.stderr, flush=True)
            self._last = key

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._quiet and sys.stderr.isatty():
            print(file=sys.stderr)


def watch(server: Server, graph: Graph, run: str, steps: Steps, display: Display) -> dict[str, Any]:
    """The history entry of a finished run. Errors: Failed, or Refused where the server goes away."""
    answered = time.monotonic()
    missing = 0
    while True:
        try:
            entry = server.history(run)
            place = None if entry else server.place(run)
            answered = time.monotonic()
        except (Refused, urllib.error.HTTPError):
            if time.monotonic() - answered > PATIENCE:
                raise
            time.sleep(POLL)
            continue
        if entry is not None:
            return finished(graph, entry)
        missing = missing + 1 if place is None else 0
        if missing > 10:  # between queue and history a run is in neither for a moment
            raise Failed("the run is no longer in the queue: someone deleted it, or the server was restarted")
        if place == 0:
            title = label(graph, steps.node).split(" (")[0] if steps.node else "running"
            display.show(f"{title}{f', {steps.text}' if steps.text else ''}", steps.done, steps.total)
        elif place is not None:
            display.show(f"waiting, number {place} in the queue")
        time.sleep(POLL)


def finished(graph: Graph, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of a run that succeeded. Errors: Failed."""
    status = entry.get("status") or {}
    if status.get("status_str") == "success":
        return entry
    for kind, data in status.get("messages", []):
        if kind == "execution_error":
            raise Failed(f"{label(graph, data['node_id'])} failed:\n  {data['exception_message'].strip()}")
        if kind == "execution_interrupted":
            raise Failed("the run was interrupted on the server")
    raise Failed(f"the run ended as {status.get('status_str', 'unknown')}")


def files(value: object) -> Iterator[dict[str, str]]:
    """Every reference to a file in what the nodes reported."""
    if isinstance(value, dict):
        if isinstance(value.get("filename"), str) and "type" in value:
            yield value
        else:
            for inner in value.values():
                yield from files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from files(inner)


def download(server: Server, entry: dict[str, Any], folder: Path, previews: bool) -> list[Path]:
    """The output files of a run, and its temporary ones where `previews` are wanted; the paths."""
    kinds = ("output", "temp") if previews else ("output",)
    places = {(p["type"], p.get("subfolder", ""), p["filename"]): p for p in files(entry.get("outputs", {}))}
    made: list[Path] = []
    for (kind, subfolder, filename), place in sorted(places.items()):
        if kind not in kinds:
            continue
        path = folder / PurePosixPath(filename.replace("\\", "/")).name
        if path in made:
            path = folder / f"{subfolder.replace('/', '_')}_{path.name}"
        server.download(place, path)
        made.append(path)
    return made


def execute(server: Server, graph: Graph, folder: Path, *, quiet: bool = False, previews: bool = False) -> list[Path]:
    """Queue, watch and download; Ctrl-C stops the run on the server, too. Errors: Refused, Failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{folder}: expected a folder for the files, got: {error.strerror}; choose another") from error
    run = str(uuid.uuid4())
    steps = Steps(server, lambda: run)  # listens before the run begins
    display = Display(quiet)
    try:
        run = server.queue(graph, run)
        entry = watch(server, graph, run, steps, display)
    except KeyboardInterrupt:
        server.stop(run)
        raise
    finally:
        display.close()
        steps.close()
    return download(server, entry, folder, previews)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]))
    result.formatter_class = argparse.RawDescriptionHelpFormatter
    add = result.add_argument
    add("graph", type=Path, help="an API graph, e.g. of example_workflows/api")
    add("--server", default="127.0.0.1:8188", metavar="HOST:PORT", help="default: %(default)s")
    add("--out", type=Path, default=Path("outputs"), metavar="FOLDER", help="where the files go (default: %(default)s)")
    add("--prompt", help="the object, e.g. 'a red mug'")
    add("--negative", help="what to steer away from")
    add("--seed", type=int, help="for every seed in the graph")
    add("--steps", type=int, help="optimisation steps; 0: the preset's")
    add("--checkpoint", metavar="NAME", help="a file of the server's checkpoints folder, or 'starter'")
    add("--lora", action="append", default=[], metavar="NAME[:STRENGTH]", help="a file of its loras folder; repeatable")
    add("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="any input; NODE: id, title or type")
    add("--list", action="store_true", help="show the nodes and their inputs, with the other options applied, and end")
    add("--previews", action="store_true", help="download temporary pictures, too")
    add("--quiet", action="store_true", help="print the files only")
    return result


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        server = Server(options.server)
        graph = read_graph(options.graph)
        try:
            known = server.nodes()
        except Refused:
            if not options.list or options.checkpoint or options.lora:
                raise
            known = {}
        graph = changed(graph, options, known)
        if options.list:
            print("\n".join(listing(graph, known)))
            return 0
        for path in execute(server, graph, options.out, quiet=options.quiet, previews=options.previews):
            print(path)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    except (Failed, urllib.error.HTTPError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the server keeps what was done, and the same graph goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
