"""One run of a graph, from the queue to its files."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from .errors import Failed, NoAnswer, Refused, WrongAnswer
from .graph import Graph, label, title
from .progress import Display, Steps
from .server import POLL, Server

T = TypeVar("T")
LOST = 10
"""Questions in a row after which a run that is neither in the queue nor in the history is gone."""


async def execute(
    server: Server, graph: Graph, folder: Path, *, quiet: bool = False, previews: bool = False
) -> list[Path]:
    """Queue, watch and download; cancelled, it stops the run on the server, too. Errors: Refused, Failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{folder}: expected a folder for the files, got: {error.strerror}; choose another") from error
    run = str(uuid.uuid4())
    async with Steps(server, run) as steps:  # listens before the run begins
        with Display(quiet) as display:
            queueing = asyncio.ensure_future(server.queue(graph, run))
            try:
                steps.run = run = await asyncio.shield(queueing)
                entry = await watch(server, graph, run, steps, display)
            except asyncio.CancelledError:
                await server.stop(run, queueing)
                raise
            finally:
                queueing.cancel()
                await asyncio.wait({queueing})
                if not queueing.cancelled():
                    queueing.exception()  # else asyncio complains that nobody asked
    return await download(server, entry, folder, previews)


async def watch(server: Server, graph: Graph, run: str, steps: Steps, display: Display) -> dict[str, Any]:
    """The history entry of a run that succeeded. Errors: Failed, NoAnswer where the server goes away."""
    answered = time.monotonic()
    missing = 0
    while True:
        try:
            entry = await server.history(run)
            place = None if entry else await server.place(run)
            answered = time.monotonic()
        except (NoAnswer, WrongAnswer):
            if time.monotonic() - answered > server.patience:
                raise
            await asyncio.sleep(POLL)
            continue
        if entry:
            return finished(graph, entry)
        missing = missing + 1 if place is None else 0
        if missing > LOST:  # between queue and history a run is in neither for a moment
            raise Failed("the run is no longer in the queue: someone deleted it, or the server was restarted")
        if place == 0:
            node = title(graph[steps.node]) if steps.node in graph else steps.node or "running"
            text = f", {steps.text}" if steps.text and steps.text_node == steps.node else ""
            display.show(f"{node}{text}", steps.done, steps.total)
        elif place is not None:
            display.show(f"waiting, number {place} in the queue")
        await asyncio.sleep(POLL)


def finished(graph: Graph, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of a run that succeeded. Errors: Failed."""
    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    if status.get("status_str") == "success":
        return entry
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        kind, data = message if isinstance(message, list) and len(message) == 2 else ("", None)
        if kind == "execution_error" and isinstance(data, dict):
            node, text = str(data.get("node_id")), str(data.get("exception_message", "it gave no reason")).strip()
            raise Failed(f"{label(graph, node)} failed:\n  {text}")
        if kind == "execution_interrupted":
            raise Failed("the run was interrupted on the server")
    raise Failed(f"the run ended as {status.get('status_str', 'unknown')}")


# Files
def files(value: object) -> Iterator[dict[str, str]]:
    """Every reference to a file in what the nodes reported: `filename`, `subfolder`, `type`."""
    if isinstance(value, dict):
        filename, kind, subfolder = value.get("filename"), value.get("type"), value.get("subfolder")
        if isinstance(filename, str) and isinstance(kind, str):
            yield {
                "filename": filename,
                "subfolder": subfolder if isinstance(subfolder, str) else "",
                "type": kind,
            }
        else:
            for inner in value.values():
                yield from files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from files(inner)


async def download(server: Server, entry: dict[str, Any], folder: Path, previews: bool) -> list[Path]:
    """The output files of a run, and its temporary ones where `previews` are wanted; the paths."""
    kinds = ("output", "temp") if previews else ("output",)
    places = {(p["type"], p["subfolder"], p["filename"]): p for p in files(entry.get("outputs"))}
    made: list[Path] = []
    for (kind, subfolder, filename), place in sorted(places.items()):
        if kind not in kinds:
            continue
        path = folder / safe_name(filename)
        if path in made:
            path = folder / safe_name(f"{subfolder.replace('/', '_')}_{path.name}")
        await server.download(place, path)
        made.append(path)
    return made


def safe_name(filename: str) -> str:
    """The last part of a path that a server gave, as a name that every file system takes."""
    name = re.sub(r'[<>:"|?*\x00-\x1f]', "_", PurePosixPath(filename.replace("\\", "/")).name)
    return name if name.strip(". ") else "file"


# Ctrl-C
def run_interruptible(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` where the first Ctrl-C cancels the work and the second ends at once, as from Python 3.11 on.

    Errors: KeyboardInterrupt where the work was cancelled, and its own.
    """
    try:
        return asyncio.run(_cancelled_by_ctrl_c(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _cancelled_by_ctrl_c(work: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    if threading.current_thread() is not threading.main_thread():
        return await task
    presses = 0

    def pressed(*_: object) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, pressed)
    try:
        return await task
    finally:
        signal.signal(signal.SIGINT, before)
