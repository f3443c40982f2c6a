"""The real ComfyUI, in this process and as a live server. Set COMFYUI_PATH to a ComfyUI folder to run these tests."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ["COMFYUI_PATH"]).expanduser() if os.environ.get("COMFYUI_PATH") else None
if COMFY is not None and (COMFY / "comfy").is_dir():
    sys.path.insert(0, str(COMFY))  # `import nodes` must stay ComfyUI's


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the host."""
    reason = None
    if COMFY is None:
        reason = "needs a real ComfyUI: set COMFYUI_PATH to its folder"
    elif not (COMFY / "comfy").is_dir():
        reason = f"COMFYUI_PATH is {COMFY}, which is not a ComfyUI"
    elif importlib.util.find_spec("aiohttp") is None:
        reason = "run with ComfyUI's Python: this one lacks ComfyUI's requirements"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.host)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI set up in this process as `main.py --cpu` would be; returns its scratch folder."""
    argv, sys.argv = sys.argv, ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # parsed once, with --cpu
    import folder_paths

    sys.argv = argv
    base = tmp_path_factory.mktemp("comfyui")
    for kind in ("user", "output", "input", "temp"):
        (base / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(base / kind))
    return base


@pytest.fixture(scope="session")
def pack(host: Path) -> ModuleType:
    """The pack, imported by file path exactly as ComfyUI does."""
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def ours(pack: ModuleType) -> Callable[[str], ModuleType]:
    """Modules of the pack by their dotted name; its dreamer_core is another copy than the tests'."""
    return lambda name: importlib.import_module(f"{pack.__name__}.{name}")


@pytest.fixture(scope="session")
def execute(ours: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """Call a node by its id as the executor does: in inference mode, on a locked clone with hidden inputs."""
    import asyncio

    import torch
    from comfy_api.internal import make_locked_method_func
    from comfy_api.latest import io

    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    classes = {node.GET_SCHEMA().node_id: node for node in found}

    def call(node_id: str, **inputs: Any) -> Any:
        node = classes[node_id]
        clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "1"}})
        with torch.inference_mode():
            return make_locked_method_func(node, "execute", clone)(**inputs)

    return call


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory, host: Path) -> Path:
    """A random SDXL in the starter's layout."""
    from miniature import save_starter_like

    return save_starter_like(tmp_path_factory.mktemp("models") / "miniature")


@pytest.fixture
def loaded(ours: Callable[[str], ModuleType], miniature: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of the miniature."""
    import torch

    with torch.inference_mode():
        return ours("nodes.host.starter").load_starter(miniature)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, host: Path) -> Iterator[Any]:
    """A live ComfyUI with the pack linked in; see `live.Server`."""
    from live import Server

    assert COMFY is not None
    with Server(COMFY, ROOT, tmp_path_factory.mktemp("server")) as running:
        yield running
