"""One ComfyUI server and one headless Chromium for all tests here; skipped with a reason where one is missing."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMFY = Path(os.environ["COMFYUI_PATH"]).expanduser() if os.environ.get("COMFYUI_PATH") else None
ARTEFACTS = HERE / "artefacts"
sys.path += [str(HERE), str(HERE.parent / "nodes")]
if COMFY is not None and (COMFY / "comfy").is_dir() and str(COMFY) not in sys.path:
    sys.path.insert(0, str(COMFY))  # `import nodes` must stay ComfyUI's


def _missing() -> str | None:
    """Why these tests cannot run."""
    from browser import chromium

    if COMFY is None:
        return "needs a real ComfyUI: set COMFYUI_PATH to its folder"
    if not (COMFY / "comfy").is_dir():
        return f"COMFYUI_PATH is {COMFY}, which is not a ComfyUI"
    if importlib.util.find_spec("aiohttp") is None:
        return "run with ComfyUI's Python: this one lacks ComfyUI's requirements"
    found = chromium()
    return found if isinstance(found, str) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the host and a browser."""
    mine = [item for item in items if HERE in item.path.parents]
    reason = _missing() if mine else None
    for item in mine:
        item.add_marker(pytest.mark.host)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A live server in a folder of its own, with `figure.ply` in its input folder."""
    assert COMFY is not None
    argv, sys.argv = sys.argv, ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    sys.argv = argv
    from figure import figure
    from live import Server

    from dreamer_core.formats import write_ply

    base = tmp_path_factory.mktemp("e2e-server")
    (base / "input").mkdir()
    write_ply(figure(), base / "input" / "figure.ply")
    with Server(COMFY, ROOT, base) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": True})
        yield running


@pytest.fixture(scope="session")
def page(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The frontend in a browser."""
    from browser import Browser

    browser = Browser(comfy.url, tmp_path_factory.mktemp("e2e-profile"), ARTEFACTS)
    yield browser
    browser.close()


@pytest.fixture(params=["classic", "vue"])
def renderer(request: pytest.FixtureRequest, comfy: Any, page: Any) -> str:
    """The page in the classic renderer, then in Nodes 2.0."""
    set_renderer(comfy, page, request.param)
    return str(request.param)


@pytest.fixture
def classic(comfy: Any, page: Any) -> None:
    """The page in the classic renderer."""
    set_renderer(comfy, page, "classic")


def set_renderer(comfy: Any, page: Any, name: str) -> None:
    """Open the page anew where it does not show this renderer."""
    vue = name == "vue"
    if page.opened is not vue:
        comfy.post("/settings", {"Comfy.VueNodes.Enabled": vue})
        page.open()
        page.opened = vue
