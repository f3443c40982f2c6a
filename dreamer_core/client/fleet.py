"""A work list over several ComfyUI servers: each is kept busy, a dead one is done without."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..batch.index import INDEX, Index, Outcome, foreign, write_text
from ..batch.work_list import Item
from .errors import Failed, NoAnswer, Refused, WrongAnswer
from .graph import Graph, changed
from .run import execute
from .server import Server

ATTEMPTS = 3
"""Servers that an object may lose before it counts as failed."""
RETRY = 10.0
"""Seconds after which a server that is gone is asked again, as long as others work."""
ITEM = "object.json"
"""In an object's folder: which one it is, written when all its files are there."""
PLAIN = {"prompt": "prompt", "negative": "negative", "seed": "seed", "steps": "steps", "model": "checkpoint"}
"""What a line may say beside `loras` and NODE.INPUT -> what the graph calls it."""


def graph_of(item: Item, graph: Graph, known: Mapping[str, Any]) -> Graph:
    """The graph that makes an object. Errors: Refused."""
    given: dict[str, Any] = {}
    assignments = []
    for name, value in item.options.items():
        if name in PLAIN:
            whole = name in ("seed", "steps") and str(value).isdecimal()
            given[PLAIN[name]] = int(value) if whole else value
        elif "." in name:
            assignments.append(f"{name}={value}")
        elif name != "lora":
            names = ", ".join(("prompt", "negative", "seed", "steps", "checkpoint", "loras"))
            raise Refused(f"line {item.line}: {name}: expected {names} or NODE.INPUT, for a graph has no other names")
    return changed(graph, dict(known), loras=item.options.get("lora", ()), assignments=assignments, **given)


@dataclass
class Fleet:
    """Servers at work on one list."""

    graph: Graph
    index: Index
    out: Path
    previews: bool = False
    retry: float = field(default_factory=lambda: RETRY)
    queue: deque[Item] = field(default_factory=deque)
    lost: dict[str, int] = field(default_factory=dict)
    working: int = 0
    """Objects that are being made."""
    tell: Callable[[str], object] = lambda text: print(text, file=sys.stderr, flush=True)

    def keep(self, item: Item, outcome: Outcome) -> None:
        """What has become of an object, in the index."""
        self.index.set(item.name, outcome)
        write_text(self.out / INDEX, self.index.text())

    def say(self, text: str) -> None:
        """A line with how much of the list is done."""
        done = self.index.count("complete") + self.index.count("failed")
        self.tell(f"[{done}/{len(self.index.items)}] {text}")


async def make_list(servers: Sequence[Server], items: Sequence[Item], fleet: Fleet) -> None:
    """Every object that is not there yet; servers are inside `async with`.

    Errors: NoAnswer where all are gone, Refused where the index.json in the folder is another program's.
    """
    if (fleet.out / INDEX).exists() and foreign((fleet.out / INDEX).read_bytes()):
        raise Refused(f"--out: {fleet.out} holds an {INDEX} of another program; name another folder")
    fleet.out.mkdir(parents=True, exist_ok=True)
    for item in items:
        if made(item, fleet.out / item.name):
            fleet.index.set(item.name, Outcome("complete"))
        else:
            fleet.queue.append(item)
    write_text(fleet.out / INDEX, fleet.index.text())
    tasks = [asyncio.create_task(_serve(server, fleet)) for server in servers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # which stop their runs
        fleet.index.settle()
        write_text(fleet.out / INDEX, fleet.index.text())
    if fleet.queue:
        raise NoAnswer(f"no server is left for {len(fleet.queue)} objects; start one, and run the same again")


def made(item: Item, folder: Path) -> bool:
    """Whether an object is there. Errors: Refused where its folder holds another one."""
    try:
        key = json.loads((folder / ITEM).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if key != item.key:
        raise Refused(f"line {item.line}: name: {folder} holds an object of other options; give it another name")
    return True


async def _serve(server: Server, fleet: Fleet) -> None:
    """Make objects on one server until the list is done; one that goes away may come back while others work."""
    known = None
    while fleet.queue or fleet.working:
        if not fleet.queue:
            await asyncio.sleep(0.1)  # another server's object may come back
            continue
        item: Item | None = None
        try:
            if known is None:
                known = await server.node_types()
            if not fleet.queue:
                continue
            item = fleet.queue.popleft()
            await _make(server, item, fleet, known)
        except (NoAnswer, WrongAnswer) as error:
            known = None
            if item is not None:
                _give_back(item, fleet, error)
            fleet.say(f"{server.url} is gone: {str(error).splitlines()[0]}")
            if not await _others_work(fleet):
                return


async def _make(server: Server, item: Item, fleet: Fleet, known: Mapping[str, Any]) -> None:
    """One object. Errors: NoAnswer, WrongAnswer where the server is at fault."""
    began, folder = time.monotonic(), fleet.out / item.name
    fleet.keep(item, Outcome("running"))
    fleet.say(f"{item.name}: begins on {server.url}")
    fleet.working += 1
    try:
        files = await execute(server, graph_of(item, fleet.graph, known), folder, quiet=True, previews=fleet.previews)
        content = {"key": item.key, "options": dict(item.options), "files": [path.name for path in files]}
        write_text(folder / ITEM, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        outcome = Outcome("complete", seconds=round(time.monotonic() - began, 2))
    except (NoAnswer, WrongAnswer):
        raise
    except (Refused, Failed) as error:
        outcome = Outcome("failed", " ".join(str(error).split()), seconds=round(time.monotonic() - began, 2))
    finally:
        fleet.working -= 1
    fleet.keep(item, outcome)
    fleet.say(f"{item.name}: {outcome.state}{f': {outcome.error}' if outcome.error else ''}")


def _give_back(item: Item, fleet: Fleet, error: Exception) -> None:
    """Another server's turn; an object that takes its servers with it fails in the end."""
    fleet.lost[item.name] = fleet.lost.get(item.name, 0) + 1
    if fleet.lost[item.name] < ATTEMPTS:
        fleet.queue.appendleft(item)
        fleet.keep(item, Outcome("waiting"))
    else:
        fleet.keep(item, Outcome("failed", f"{ATTEMPTS} servers were lost over it: {' '.join(str(error).split())}"))


async def _others_work(fleet: Fleet) -> bool:
    """Whether it is worth asking again after a while."""
    deadline = time.monotonic() + fleet.retry
    while time.monotonic() < deadline and (fleet.working or fleet.queue):
        await asyncio.sleep(min(0.1, fleet.retry))
        if not fleet.working and not fleet.queue:
            return False
    return fleet.working > 0
