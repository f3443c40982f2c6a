"""How far a run is: heard on the server's socket, shown on the terminal."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
from tqdm import tqdm

from .server import Server

CONNECTING = 10.0
"""Seconds after which a run begins though the socket is not open yet."""
TEXT = (3).to_bytes(4, "big")
"""The kind of a binary message that carries a line of text on a node."""
WAITING, COUNTING = "{desc} [{elapsed}]", "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}]"


class Steps:
    """Listens, inside `async with`, to how far which node of a run is; without a socket nothing is heard."""

    def __init__(self, server: Server, run: str) -> None:
        self.run, self.node, self.done, self.total = run, "", 0, 0
        self.text, self.text_node = "", ""
        self._server = server

    async def __aenter__(self) -> Steps:
        connected = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._listen(connected))
        try:
            await asyncio.wait({connected}, timeout=CONNECTING)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _listen(self, connected: asyncio.Future[None]) -> None:
        try:
            async with self._server.messages() as socket:
                if not connected.done():
                    connected.set_result(None)
                async for message in socket:
                    self._hear(message.data)
        except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError):
            return  # a run is watched without it, too
        finally:
            if not connected.done():
                connected.set_result(None)

    def _hear(self, message: object) -> None:
        try:
            if isinstance(message, str):
                self._event(json.loads(message))
            elif (
                isinstance(message, bytes) and message[:4] == TEXT
            ):  # then the length of the node's id, the id, the text
                end = 8 + int.from_bytes(message[4:8], "big")
                self.text_node, self.text = (
                    message[8:end].decode(errors="replace"),
                    message[end:].decode(errors="replace"),
                )
        except (AttributeError, KeyError, TypeError, ValueError):
            return  # a message of another pack that has its own form

    def _event(self, event: dict[str, Any]) -> None:
        data = event.get("data") or {}
        if event.get("type") != "progress_state" or data.get("prompt_id") != self.run:
            return
        running = [(n, s) for n, s in data["nodes"].items() if s.get("state") == "running"]
        if running:
            node, state = max(running, key=lambda pair: pair[1].get("max", 0))
            self.node, self.done, self.total = node, int(state["value"]), int(state["max"])


class Display:
    """A bar on a terminal, now and then a line in a file, inside `with`."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._began, self._last = quiet, time.monotonic(), ""
        self._bar: tqdm | None = None

    def __enter__(self) -> Display:
        if not self._quiet and sys.stderr.isatty():
            self._bar = tqdm(desc="waiting", bar_format=WAITING, dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, what: str, done: int = 0, total: int = 0) -> None:
        """`what` is happening, `done` of `total`."""
        what = " ".join(what.split())
        if self._bar is not None:
            self._bar.bar_format = COUNTING if total > 1 else WAITING
            self._bar.n, self._bar.total = done, total or None
            self._bar.set_description_str(what)
            return
        key = f"{what.split(',')[0]} {done * 10 // total if total else ''}"
        if self._quiet or key == self._last:
            return
        seconds = int(time.monotonic() - self._began)
        count = f" {done}/{total}" if total > 1 else ""
        print(f"{seconds // 60}:{seconds % 60:02} {what}{count}", file=sys.stderr, flush=True)
        self._last = key
