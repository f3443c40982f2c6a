"""A ComfyUI server, as far as a client needs it."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from .errors import Failed, NoAnswer, Refused, WrongAnswer
from .graph import Graph, label
from .node_types import NodeTypes

POLL = 0.5
"""Seconds between two questions to the server."""
PATIENCE = 30.0
"""Seconds without an answer after which the server counts as gone."""
STOPPING = 10.0
"""Seconds in which a run that was stopped should have left the queue."""
CLOSING = 0.5
"""Seconds in which a server should agree that its socket is closed."""
CHECK = "--server should name ComfyUI itself; look into its log, and for a proxy or a login before it"


class Server:
    """The few routes of ComfyUI's API that a client needs, inside `async with`. Errors: Refused for the address."""

    def __init__(self, address: str, patience: float = PATIENCE) -> None:
        try:
            url = URL(address if "://" in address else f"http://{address}").with_query(None).with_fragment(None)
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise Refused(f"--server: expected HOST:PORT or http://HOST:PORT, got {address!r}")
        self._url = str(url).rstrip("/")
        self.url = str(url.with_user(None)).rstrip("/")
        """Without a password, for messages."""
        self.client = uuid.uuid4().hex
        self.patience = patience

    async def __aenter__(self) -> Server:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.patience, sock_read=self.patience)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    # Talking
    @asynccontextmanager
    async def _open(
        self, path: str, body: dict[str, Any] | None = None, query: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply to a GET, or to a POST with a body. Errors: NoAnswer, WrongAnswer where it breaks off."""
        what = query["filename"] if query else path
        begun = False
        try:
            method = "GET" if body is None else "POST"
            async with self._session.request(method, f"{self._url}{path}", json=body, params=query) as reply:
                begun = True
                yield reply
        except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError) as error:
            why = self._reason(error)
            if begun:
                raise WrongAnswer(f"{what}: the reply of {self.url} broke off ({why}); run the same again") from error
            remedy = "start it, or name another with --server HOST:PORT"
            raise NoAnswer(f"no ComfyUI answers at {self.url} ({why}); {remedy}") from error

    def _reason(self, error: Exception) -> str:
        """The cause in a few words, on one line."""
        if isinstance(error, asyncio.TimeoutError):
            return f"silent for {self.patience:g} s"
        if isinstance(error, aiohttp.ClientPayloadError):
            return "it ended too early"
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        text = getattr(cause, "strerror", None) or getattr(cause, "message", None) or str(cause) or type(cause).__name__
        return " ".join(str(text).split())[:120]

    def _wrong(self, reply: aiohttp.ClientResponse, data: bytes, parsed: object = None) -> WrongAnswer:
        """The error for a reply that ComfyUI would not give there, or that is an error."""
        text = " ".join(data[:4000].decode(errors="replace").split())
        page = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE)
        if page or text.startswith("<"):
            came = f"an HTML page ({page[1].strip()})" if page else "an HTML page"
        else:
            came = f"{text[:60]!r}" if text else "nothing"
        status = f"{reply.status} {reply.reason or ''}".strip()
        message = f"{reply.url.with_query(None)}: expected an answer of ComfyUI, got {came} ({status}); {CHECK}"
        return WrongAnswer(message, reply.status, parsed)

    async def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a reply, None where it is empty. Errors: NoAnswer, WrongAnswer."""
        async with self._open(path, body) as reply:
            data = await reply.read()
            try:
                parsed = json.loads(data) if data else None
            except (ValueError, RecursionError) as error:
                raise self._wrong(reply, data) from error
            if reply.status >= 400:
                raise self._wrong(reply, data, parsed)
            return parsed

    def _unknown(self, path: str, got: object) -> WrongAnswer:
        text = json.dumps(got, ensure_ascii=False)
        return WrongAnswer(f"{self.url}{path}: expected what ComfyUI says there, got {text[:60]}; {CHECK}")

    # Routes
    async def node_types(self) -> NodeTypes:
        """Every node type that the server knows."""
        found = await self._ask("/object_info")
        if not isinstance(found, dict):
            raise self._unknown("/object_info", found)
        return found

    async def queue(self, graph: Graph, run: str) -> str:
        """The id of the queued run: `run`, a UUID, but on an old server. Errors: Refused, a line per wrong input."""
        try:
            reply = await self._ask("/prompt", {"prompt": graph, "client_id": self.client, "prompt_id": run})
            if not isinstance(reply, dict) or not isinstance(reply.get("prompt_id"), str):
                raise self._unknown("/prompt", reply)
        except WrongAnswer as error:
            said = error.reply if isinstance(error.reply, dict) and 400 <= error.status < 500 else {}
            if "error" in said or "node_errors" in said:
                raise Refused(node_errors(graph, said)) from error
            with suppress(NoAnswer, WrongAnswer):  # the server may have queued it before the reply was lost
                await self.cancel(run)
            raise
        if reply.get("node_errors"):  # some outputs would be made and others not: all or nothing
            await self.cancel(reply["prompt_id"])
            raise Refused(node_errors(graph, reply))
        return reply["prompt_id"]

    async def cancel(self, run: str) -> None:
        """Take a run out of the queue, or stop it."""
        try:
            await self._ask(f"/api/jobs/{run}/cancel", {})
        except WrongAnswer:  # a ComfyUI without that route
            await self._ask("/queue", {"delete": [run]})
            await self._ask("/interrupt", {"prompt_id": run})

    async def stop(self, run: str, queueing: asyncio.Future[str] | None = None) -> None:
        """Cancel a run until it has ended: ComfyUI forgets what comes as a run starts. Errors: Failed.

        `queueing` is the request that queues it, where that is still under way.
        """
        deadline = time.monotonic() + STOPPING
        try:
            while True:
                await self.cancel(run)
                await asyncio.sleep(POLL)
                settled = queueing is None or queueing.done()
                if queueing is not None and settled and queueing.exception() is None:
                    run = queueing.result()  # an old server's own id
                if (settled and await self.place(run) is None) or time.monotonic() > deadline:
                    return
        except (NoAnswer, WrongAnswer) as error:
            raise Failed(f"interrupted, but {self.url} does not answer: the run may go on there") from error

    async def history(self, run: str) -> dict[str, Any] | None:
        """The entry of a finished run."""
        path = f"/history/{run}"
        found = await self._ask(path)
        entry = found.get(run) if isinstance(found, dict) else found
        if not isinstance(found, dict) or not isinstance(entry, dict | None):
            raise self._unknown(path, found)
        return entry

    async def place(self, run: str) -> int | None:
        """0 while it runs, else the number of runs up to it in the queue; None where it is in neither list."""
        state = await self._ask("/queue")
        try:
            if any(item[1] == run for item in state["queue_running"]):
                return 0
            waiting = sorted((float(item[0]), str(item[1])) for item in state["queue_pending"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._unknown("/queue", state) from error
        return next((i + 1 for i, item in enumerate(waiting) if item[1] == run), None)

    async def download(self, place: dict[str, str], path: Path) -> None:
        """One file of an output, whole or not at all. Errors: NoAnswer, Failed."""
        query = {name: place.get(name, "") for name in ("filename", "subfolder", "type")}
        temporary = path.with_name(f".{path.name}.part")
        try:
            async with self._open("/view", query=query) as reply:
                if reply.status >= 400 or reply.content_type == "text/html":  # ComfyUI sends no file as HTML
                    raise self._wrong(reply, await reply.read())
                with temporary.open("wb") as file:
                    async for chunk in reply.content.iter_chunked(1 << 20):
                        file.write(chunk)
            temporary.replace(path)
        except OSError as error:
            raise Failed(
                f"{path}: expected to write a file there, got: {error.strerror}; choose another --out"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def messages(self) -> AbstractAsyncContextManager[Any]:
        """The socket on which the server says how far it is. Errors: aiohttp's."""
        timeout = aiohttp.ClientWSTimeout(ws_close=CLOSING)
        query = {"clientId": self.client}
        return self._session.ws_connect(f"{self._url}/ws", params=query, max_msg_size=0, timeout=timeout)


def node_errors(graph: Graph, reply: dict[str, Any]) -> str:
    """The answer of /prompt to a graph that it refuses, one line per wrong input."""
    lines = []
    nodes = reply.get("node_errors")
    for node, found in nodes.items() if isinstance(nodes, dict) else ():
        for error in found.get("errors", []) if isinstance(found, dict) else ():
            lines += _input_error(label(graph, node), error if isinstance(error, dict) else {"message": str(error)})
    error = reply.get("error")
    error = error if isinstance(error, dict) else {"message": error}
    head = error.get("message") or "it refused the graph"
    details = "" if lines else error.get("details")
    return "\n".join([f"ComfyUI refused the graph: {head}{f' ({details})' if details else ''}", *lines])


def _input_error(node: str, error: dict[str, Any]) -> list[str]:
    extra = error.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    field = extra.get("input_name")
    text = ": ".join(str(t) for t in (error.get("message"), error.get("details")) if t)
    lines = [f"  {node}{f', {field}' if field else ''}: {text}"]
    described = extra.get("input_config")
    options = described[0] if isinstance(described, list) and described else None
    if error.get("type") == "value_not_in_list" and isinstance(options, list) and len(options) > 12:
        lines.append(f"    the server has {len(options)}, e.g. {', '.join(map(str, options[:5]))}")
    return lines
