"""A ComfyUI of its own for a builder: `main.py --cpu` with this pack and nothing else, in a scratch folder."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0
"""Seconds to wait for the server."""


def installation() -> tuple[Path, Path]:
    """ComfyUI's folder and Python, as `python3 dev.py comfyui` prepared them."""
    sys.path.insert(0, str(ROOT))
    import dev

    folder = dev.find_comfyui()
    if folder is None:
        sys.exit("no ComfyUI found: run python3 dev.py comfyui, or set COMFYUI_PATH and COMFYUI_PYTHON")
    named = os.environ.get("COMFYUI_PYTHON")
    python = Path(named) if named else dev.venv_python(dev.cache_folder() / "comfyui-venv")
    return folder, python


@contextmanager
def server(address: str | None = None) -> Iterator[str]:
    """The URL of a running server: the one at `address`, or a fresh one that ends with the block."""
    if address:
        yield address if "://" in address else f"http://{address}"
        return
    folder, python = installation()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dreamer-xl-") as scratch:
        base = Path(scratch)
        for name in ("custom_nodes", "models/checkpoints", "models/loras", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True)
        (base / "custom_nodes" / "dreamer-xl").symlink_to(ROOT, target_is_directory=True)
        command = [
            python, folder / "main.py", "--cpu", "--port", port, "--base-directory", base, "--disable-auto-launch",
            "--disable-api-nodes", "--database-url", f"sqlite:///{base / 'comfyui.db'}", "--preview-method", "none",
        ]  # fmt: skip
        log = base / "server.log"
        with log.open("wb") as stream:
            process = subprocess.Popen([str(c) for c in command], cwd=folder, stdout=stream, stderr=stream)
        try:
            wait_for(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get(url, "/system_stats")
            return
        except OSError:
            time.sleep(0.3)
    sys.exit(f"ComfyUI did not start:\n{log.read_text(errors='replace')[-3000:]}")


def get(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}{path}", timeout=60) as reply:
        return json.loads(reply.read())


def described(tool: str) -> dict[str, Any]:
    """Every node as a server describes it: the one named by `--server`, or a fresh one; `tool` is the docstring."""
    parser = argparse.ArgumentParser(description=tool.splitlines()[0])
    parser.add_argument("--server", metavar="HOST:PORT", help="a running ComfyUI with this pack")
    with server(parser.parse_args().server) as url:
        found: dict[str, Any] = get(url, "/object_info")
    return found
