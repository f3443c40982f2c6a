"""A live ComfyUI server in an isolated folder, and a client that speaks its API."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLUGIN = """import sys
sys.path.append({tests!r})
import tiny_checkpoint
tiny_checkpoint.register()
NODE_CLASS_MAPPINGS = {{}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`main.py --cpu` with its own models, custom_nodes, input, output, temp and user folders."""

    def __init__(self, comfy: Path, pack: Path, base: Path, *arguments: str) -> None:
        self.base, self.port = base, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        tests = Path(__file__).resolve().parent
        folders = ("custom_nodes/tiny_sdxl", "models/checkpoints", "models/loras", "input", "output", "temp", "user")
        for folder in folders:
            (base / folder).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / "dreamer-xl").symlink_to(pack, target_is_directory=True)
        (base / "custom_nodes" / "tiny_sdxl" / "__init__.py").write_text(PLUGIN.format(tests=str(tests)))
        self._make_models()
        self.log = base / "server.log"
        command = [
            sys.executable, str(comfy / "main.py"), "--cpu", "--port", str(self.port), "--listen", "127.0.0.1",
            "--base-directory", str(base), "--disable-auto-launch", "--disable-api-nodes",
            "--database-url", f"sqlite:///{base / 'comfyui.db'}", "--preview-method", "none", *arguments,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=comfy, stdout=log, stderr=log, env=environment)

    def _make_models(self) -> None:
        import torch
        from tiny_checkpoint import save_checkpoint, save_lora, save_multiview

        from dreamer_core.teachers.multiview.files import PUBLISHED

        save_checkpoint(self.base / "models" / "checkpoints" / "tiny.safetensors")
        save_lora(self.base / "models" / "loras" / "tiny_lora.safetensors")
        save_multiview(self.base / "models" / "model_patches" / PUBLISHED)
        from safetensors.torch import save_file

        flux = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}
        save_file(flux, self.base / "models" / "checkpoints" / "not_sdxl.safetensors")

    def __enter__(self) -> Server:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return self
            except OSError:
                time.sleep(0.3)
        self.__exit__()
        raise RuntimeError(f"ComfyUI did not start:\n{self.tail()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The process neither works nor answers, as one that is busy for long."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def tail(self, characters: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    @property
    def pid(self) -> int:
        """Of the server process."""
        return self._process.pid

    def resident_bytes(self) -> int:
        """Memory of the server process."""
        import psutil

        return psutil.Process(self.pid).memory_info().rss

    # HTTP
    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=30) as reply:
            data = reply.read()
            return json.loads(data) if "json" in reply.headers.get("Content-Type", "") else data

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                data = reply.read()
                return reply.status, json.loads(data) if data else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def view(self, place: dict[str, str]) -> bytes:
        """A file by the reference that a node's ui gave."""
        return self.get("/view", **place)

    # Queue
    def queue(self, graph: dict[str, Any], client: str = "") -> str:
        status, reply = self.post("/prompt", {"prompt": graph, "client_id": client or uuid.uuid4().hex})
        assert status == 200, reply
        return reply["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 240) -> dict[str, Any]:
        """The history entry of a finished prompt, whatever its end."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None and entry.get("status"):
                return entry
            time.sleep(0.1)
        raise AssertionError(f"the prompt did not end within {timeout} s:\n{self.tail()}")

    def stop(self, prompt_id: str, timeout: float = 240) -> dict[str, Any]:
        """The history entry of a prompt that is interrupted until it ends: ComfyUI forgets what comes as it starts."""
        deadline = time.monotonic() + timeout
        while True:
            self.post("/interrupt", {})
            try:
                return self.wait(prompt_id, 10)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """The history entry of a prompt that must succeed."""
        entry = self.wait(self.queue(graph))
        assert entry["status"]["status_str"] == "success", (entry["status"], self.tail())
        return entry

    def errors(self, graph: dict[str, Any]) -> dict[str, str]:
        """Node errors with which /prompt refuses a graph, as node id -> text."""
        status, reply = self.post("/prompt", {"prompt": graph, "client_id": "tests"})
        assert status == 400, reply
        return {
            node: "; ".join(f"{e['message']}: {e['details']}" for e in found["errors"])
            for node, found in reply["node_errors"].items()
        }


class Listener:
    """Collects the messages of /ws in a thread."""

    def __init__(self, server: Server) -> None:
        self.client = uuid.uuid4().hex
        self.messages: list[tuple[float, str, Any]] = []
        self._url = f"{server.url}/ws?clientId={self.client}"
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    async def _listen(self) -> None:
        import aiohttp

        async with aiohttp.ClientSession() as session, session.ws_connect(self._url, max_msg_size=0) as socket_:
            self._ready.set()
            while not self._stop.is_set():
                try:
                    message = await socket_.receive(timeout=0.2)
                except asyncio.TimeoutError:
                    continue
                now = time.monotonic()
                if message.type == aiohttp.WSMsgType.TEXT:
                    data = json.loads(message.data)
                    self.messages.append((now, data["type"], data["data"]))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self.messages.append((now, f"binary{int.from_bytes(message.data[:4], 'big')}", message.data[4:]))
                elif message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                    return

    def __enter__(self) -> Listener:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def of(self, kind: str) -> list[tuple[float, Any]]:
        return [(t, data) for t, name, data in list(self.messages) if name == kind]

    def wait_for(self, kind: str, count: int = 1, timeout: float = 120) -> Any:
        """The data of the `count`-th message of a kind."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = self.of(kind)
            if len(found) >= count:
                return found[count - 1][1]
            assert self._thread.is_alive(), f"the socket was closed; got {[m[1] for m in self.messages][-20:]}"
            time.sleep(0.02)
        raise AssertionError(f"no {kind} within {timeout} s; got {[m[1] for m in self.messages][-20:]}")
