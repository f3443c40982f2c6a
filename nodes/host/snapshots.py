"""What the browser sees of a running optimisation: the Gaussians that matter most, kept in memory for one client.

A snapshot lies under an unguessable id that only the client which queued the prompt is told, and is given out to that
client only. It goes when the node is removed or done, when the client queues something else, and when there are too
many.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...dreamer_core.formats.splat import RECORD
from ...dreamer_core.frames import flip_frame
from ...dreamer_core.gaussians import Gaussians

ROUTE = "/dreamerxl/snapshots/{id}"
EVENT = "dreamerxl.snapshot"
CLIENT_HEADER = "Dreamer-XL-Client"
INTERVAL = 2.0
"""Seconds between two snapshots at least."""
SHARE = 0.05
"""Of the time may go into snapshots."""
MAX_GAUSSIANS = 50_000
MAX_SNAPSHOTS = 32
MAX_BYTES = 64 << 20


def pack_splat(gaussians: Gaussians, limit: int = MAX_GAUSSIANS) -> bytes:
    """World-frame Gaussians as a `.splat` file in the frame of a SPLAT; the `limit` largest in opacity x area."""
    with torch.no_grad():
        logs = gaussians.log_scales
        area = (logs.sum(-1) - logs.amin(-1)).exp()  # of the two longer axes
        order = torch.topk(gaussians.opacities * area, min(limit, len(gaussians))).indices
        chosen = flip_frame(gaussians[order].map(lambda x: x.detach().to("cpu", torch.float32)))
        rgba = torch.cat([chosen.rgb, chosen.opacities[:, None]], -1)
        rotation = torch.nn.functional.normalize(chosen.quats, dim=-1)
    records = np.empty(len(chosen), RECORD)
    records["mean"] = chosen.means.numpy()
    records["scale"] = chosen.scales.numpy()
    records["rgba"] = (rgba * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    records["quat"] = (rotation * 128 + 128).round().clamp(0, 255).to(torch.uint8).numpy()
    return records.tobytes()


@dataclass(frozen=True)
class Snapshot:
    """The latest state of one node, for one client."""

    id: str
    client: str
    prompt: str
    node: str
    step: int
    data: bytes


class SnapshotShelf:
    """The latest snapshot of each (client, node), least recently written first; safe from several threads."""

    def __init__(self, max_snapshots: int = MAX_SNAPSHOTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_snapshots, self._max_bytes = max_snapshots, max_bytes
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._snapshots)

    def put(self, client: str, prompt: str, node: str, step: int, data: bytes) -> Snapshot:
        """Keep `data` in place of what the node had; whatever the client's earlier prompts left goes."""
        with self._lock:
            kept = None
            for old in [s for s in self._snapshots.values() if s.client == client]:
                if old.prompt == prompt and old.node == node:
                    kept = old.id
                if old.prompt != prompt or old.node == node:
                    del self._snapshots[old.id]
            snapshot = Snapshot(kept or secrets.token_urlsafe(24), client, prompt, node, step, data)
            self._snapshots[snapshot.id] = snapshot
            total = sum(len(s.data) for s in self._snapshots.values())
            while len(self._snapshots) > self._max_snapshots or (total > self._max_bytes and len(self._snapshots) > 1):
                total -= len(self._snapshots.popitem(last=False)[1].data)
            return snapshot

    def get(self, id: str, client: str) -> Snapshot | None:
        """The snapshot, if it is this client's."""
        with self._lock:
            found = self._snapshots.get(id)
            return (
                found if found is not None and secrets.compare_digest(found.client.encode(), client.encode()) else None
            )

    def remove(self, id: str, client: str) -> bool:
        """Whether there was one to remove."""
        if self.get(id, client) is None:
            return False
        with self._lock:
            return self._snapshots.pop(id, None) is not None

    def remove_node(self, client: str, node: str) -> None:
        """The node is done: its result takes over."""
        with self._lock:
            for old in [s for s in self._snapshots.values() if (s.client, s.node) == (client, node)]:
                del self._snapshots[old.id]


SHELF = SnapshotShelf()


def add_routes(server: Any, shelf: SnapshotShelf = SHELF) -> None:
    """GET and DELETE of one snapshot by its id; everything else is a 404."""
    from aiohttp import web

    def client_of(request: Any) -> str:
        return request.headers.get(CLIENT_HEADER, "")

    @server.routes.get(ROUTE)
    async def get_snapshot(request: Any) -> Any:
        found = shelf.get(request.match_info["id"], client_of(request))
        if found is None:
            raise web.HTTPNotFound()
        headers = {"Cache-Control": "no-store", "ETag": f'"{found.step}"', "X-Content-Type-Options": "nosniff"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.data, content_type="application/octet-stream", headers=headers)

    @server.routes.delete(ROUTE)
    async def delete_snapshot(request: Any) -> Any:
        if not shelf.remove(request.match_info["id"], client_of(request)):
            raise web.HTTPNotFound()
        return web.Response(status=204)


def _server() -> Any:
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


class LiveView:
    """Tells the browser that queued the prompt about one node's progress, in three dimensions."""

    def __init__(
        self, node_id: str | None, workflow: str | None = None, shelf: SnapshotShelf = SHELF,
        place: Callable[[Gaussians], Gaussians] | None = None,
    ) -> None:  # fmt: skip
        """`place` brings what the run works on to where the splat belongs."""
        self._node, self._workflow, self._shelf, self._place = node_id, workflow, shelf, place
        self._last = -float("inf")
        self._cost = 0.0
        self._broken = False

    def update(self, step: int, steps: int, gaussians: Gaussians) -> None:
        """Make and announce a snapshot after `step` steps, when it is time and somebody looks; never raises."""
        now = time.monotonic()
        if self._broken or self._node is None or now - self._last < max(INTERVAL, self._cost / SHARE):
            return
        server = _server()
        client = getattr(server, "client_id", None)
        if client is None or client not in server.sockets:
            return
        try:
            data = pack_splat(gaussians if self._place is None else self._place(gaussians))
        except Exception:  # a viewer must not cost a run
            logging.exception("Dreamer XL: the live view stops, the optimisation goes on")
            self._broken = True
            return
        snapshot = self._shelf.put(client, _prompt(), self._node, step, data)
        message = {
            "node": self._node,
            "workflow": self._workflow,
            "id": snapshot.id,
            "step": step,
            "steps": steps,
            "shown": len(data) // RECORD.itemsize,
            "count": len(gaussians),
        }
        server.send_sync(EVENT, message, client)
        self._last = time.monotonic()
        self._cost = self._last - now

    def close(self) -> None:
        """The node is done."""
        client = getattr(_server(), "client_id", None)
        if client is not None and self._node is not None:
            self._shelf.remove_node(client, self._node)


def _prompt() -> str:
    """The id of the prompt that runs in this thread."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return context.prompt_id if context is not None else ""
