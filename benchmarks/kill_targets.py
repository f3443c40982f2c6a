"""What `benchmarks.kills` kills: a small run of the command line, or of ComfyUI's nodes in a process of their own."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
Note = Callable[[int], None]
"""Is told how many steps are made."""


class Target(Protocol):
    """A run that can be started, killed and started again."""

    steps: int

    def start(self, folder: Path, note: Note) -> None: ...

    def again(self, folder: Path, note: Note) -> None: ...

    def saved(self, folder: Path) -> int:
        """Steps that the next start goes on from."""
        ...

    def digest(self, folder: Path) -> str:
        """Of the finished splat."""
        ...

    def stage(self, folder: Path, steps: int) -> str: ...

    def torn(self, folder: Path) -> list[str]:
        """Files under their own names that cannot be read."""
        ...

    def stale(self, folder: Path) -> list[Path]: ...

    def missing(self, folder: Path) -> list[str]:
        """What a finished run should have left and did not."""
        ...


def broken(paths: list[Path]) -> Iterator[str]:
    """Those that a reader of their kind refuses; none of ours, whose kernels' threads would not outlive a fork."""
    from PIL import Image
    from plyfile import PlyData
    from safetensors import safe_open

    for path in paths:
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".csv":
                assert path.read_text().endswith("\n"), "no end of the last line"
            elif path.suffix in (".png", ".webp", ".gif"):
                Image.open(path).load()
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    assert file.keys()
            elif path.suffix == ".mp4":
                import av

                with av.open(str(path)) as film:
                    assert sum(1 for _ in film.decode(video=0)) > 0
            elif path.suffix == ".ply":
                PlyData.read(path)
            elif path.suffix == ".spz":
                gzip.decompress(path.read_bytes())
        except Exception as error:
            yield f"{path.name} ({type(error).__name__}: {error})"


def import_slow() -> None:
    """What every child would import for itself; no kernel runs, for its threads would not outlive the fork."""
    for name in ("av", "diffusers", "numba", "PIL.Image", "psutil", "transformers", "gsply"):
        with suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("dreamer_core.rendering.numba_renderer")


def all_files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def is_temporary(path: Path) -> bool:
    """A file of ours on its way, or the lock of a run."""
    return path.name.startswith(".") or ".tmp" in path.name


def noting(module: Any, note: Note) -> None:
    """Tell `note` of every step that the module's loop makes."""
    core = module.optimize

    def counted(*arguments: Any) -> Iterator[Any]:
        for report in core(*arguments):
            note(report.step + 1)
            yield report

    module.optimize = counted


class _Files:
    """What both targets look at."""

    steps: int

    def torn(self, folder: Path) -> list[str]:
        return list(broken([p for p in all_files(folder) if not is_temporary(p)]))

    def stale(self, folder: Path) -> list[Path]:
        return [p for p in all_files(folder) if is_temporary(p)]


class CommandLine(_Files):
    """`generate`, with a tiny random SDXL."""

    def __init__(self, base: Path, steps: int, interval: float) -> None:
        import_slow()
        from dreamer_core.cameras import turntable
        from dreamer_core.cli import session
        from dreamer_core.optimize import run
        from dreamer_core.teachers.sdxl.loading import load_sdxl
        from dreamer_core.teachers.sdxl.tiny_sdxl import save_tiny_sdxl

        self.steps = steps
        self._model = save_tiny_sdxl(base / "tiny")
        load_sdxl(self._model)
        run.SAVE_EVERY_SECONDS = interval
        session.turntable = lambda views, size, **more: turntable(min(views, 12), min(size, 128), **more)
        self._run = run

    def _generate(self, folder: Path, note: Note, *more: str) -> None:
        from dreamer_core.cli import main

        noting(self._run, note)
        options = ["--preset", "starter", "--views", "1", "--resolution", "64", "--count", "150"]
        options += ["--steps", str(self.steps), "--export", "spz", "--model", str(self._model)]
        sys.exit(main(["generate", "a red mug", *options, "--out", str(folder), *more]))

    def start(self, folder: Path, note: Note) -> None:
        self._generate(folder, note)

    def again(self, folder: Path, note: Note) -> None:
        """As one who was told to: --resume wherever the run had written anything."""
        begun = any((folder / name).exists() for name in ("state.safetensors", "run.json", "splat.ply"))
        self._generate(folder, note, *(["--resume"] if begun else []))

    def saved(self, folder: Path) -> int:
        path = folder / "state.safetensors"
        if not path.is_file():
            return 0
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return int(file.get_tensor("step"))

    def digest(self, folder: Path) -> str:
        path = folder / "splat.ply"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def stage(self, folder: Path, steps: int) -> str:
        if not (folder / "run.json").is_file():
            return "before the run"
        return "in the steps" if steps < self.steps else "after the last step"

    def missing(self, folder: Path) -> list[str]:
        names = ("splat.ply", "splat.spz", "turntable.mp4", "views.png", "run.json", "metrics.csv")
        found = [f"no {name}" for name in names if not (folder / name).is_file()]
        if (folder / "run.json").is_file() and json.loads((folder / "run.json").read_text())["status"] != "complete":
            found.append("run.json does not say complete")
        if (folder / "metrics.csv").is_file():
            rows = (folder / "metrics.csv").read_text().splitlines()[1:]
            if [row.partition(",")[0] for row in rows] != [str(i) for i in range(self.steps)]:
                found.append(f"metrics.csv has {len(rows)} of {self.steps} rows")
        return found


class Node(_Files):
    """Optimize and Export, called as ComfyUI's executor does, with a tiny random SDXL."""

    def __init__(self, base: Path, steps: int, interval: float) -> None:
        self.steps = steps
        place = Path(os.environ.get("COMFYUI_PATH") or sys.exit("--node needs COMFYUI_PATH"))
        sys.path.insert(0, str(place))
        argv, sys.argv = sys.argv, ["main.py", "--cpu"]
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")  # which reads them

        sys.argv = argv
        self._pack = self._import_pack()
        vars(self._ours("dreamer_core.optimize.run"))["SAVE_EVERY_SECONDS"] = interval
        import_slow()
        sys.path.insert(0, str(ROOT / "tests" / "nodes"))
        self._model = importlib.import_module("miniature").save_starter_like(base / "miniature")
        self._ours("nodes.host.starter").load_starter(self._model)

    @staticmethod
    def _import_pack() -> ModuleType:
        spec = importlib.util.spec_from_file_location("dreamer_xl_pack", ROOT / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    def _ours(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self._pack.__name__}.{name}")

    def start(self, folder: Path, note: Note) -> None:
        import asyncio

        import folder_paths
        import torch

        shutil.rmtree(folder / "temp", ignore_errors=True)  # as ComfyUI does when it starts
        for kind in ("user", "output", "input", "temp"):
            (folder / kind).mkdir(exist_ok=True)
            getattr(folder_paths, f"set_{kind}_directory")(str(folder / kind))
        noting(self._ours("dreamer_core.optimize.run"), note)
        nodes = asyncio.run(self._ours("nodes.extension").comfy_entrypoint())
        classes = {n.GET_SCHEMA().node_id: n for n in asyncio.run(nodes.get_node_list())}

        def call(name: str, **inputs: Any) -> Any:
            from comfy_api.internal import make_locked_method_func
            from comfy_api.latest import io

            node = classes[name]
            clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "1"}})
            with torch.inference_mode():
                return make_locked_method_func(node, "execute", clone)(**inputs).args

        with torch.inference_mode():
            model, clip, vae = self._ours("nodes.host.starter").load_starter(self._model)
        (splat,) = call("DreamerXLInitialize", source={"source": "sphere", "count": 150})
        (prompt,) = call("DreamerXLPrompt", clip=clip, prompt="a red mug")
        small = {"preset": "starter", "steps": self.steps, "views": 1, "resolution": 64, "seed": 0, "final_views": 1}
        made, _ = call("DreamerXLOptimize", model=model, vae=vae, prompt=prompt, splat=splat, **small)
        call("DreamerXLExport", splat=made, turntable="mp4", turntable_frames=12, turntable_resolution=128)

    def again(self, folder: Path, note: Note) -> None:
        self.start(folder, note)

    def saved(self, folder: Path) -> int:
        states = (folder / "user").rglob("*.safetensors") if (folder / "user").is_dir() else []
        return max((int(p.stem) for p in states if p.stem.isdigit()), default=0)

    def _exported(self, folder: Path) -> list[Path]:
        return sorted(p for p in (folder / "output").rglob("*.ply") if not is_temporary(p))

    def digest(self, folder: Path) -> str:
        """Of the last export."""
        found = self._exported(folder)
        return hashlib.sha256(found[-1].read_bytes()).hexdigest() if found else ""

    def stage(self, folder: Path, steps: int) -> str:
        if steps == 0:
            return "before the first step"
        return "in the steps" if steps < self.steps else "after the last step"

    def missing(self, folder: Path) -> list[str]:
        found = self._exported(folder)
        if not found:
            return ["no splat"]
        return [f"no {s[1:]}" for s in (".png", ".mp4", ".json") if not found[-1].with_suffix(s).is_file()]
