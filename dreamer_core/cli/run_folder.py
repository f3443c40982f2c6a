"""The folder of one run: its files, its log, and what may go on in it."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import write_atomically
from ..optimize import StepReport
from ..optimize.checkpoint import read_metadata

COLUMNS = (
    "step", "t", "s", "gradient_norm", "image_gradient_norm", "clipped", "gaussians", "depth", "nonfinite",
    "network_calls", "network_evaluations", "seconds", "tv_rgb", "tv_disparity", "scale", "opacity",
    "opacity_entropy", "anisotropy",
)  # fmt: skip


def jsonable(value: Any) -> Any:
    """Dataclasses, paths and tuples as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return jsonable(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def fingerprint(settings: dict[str, Any]) -> str:
    """A hash of everything that decides the result except the number of steps and the device."""
    plain = jsonable(settings)
    plain["config"] = {k: v for k, v in plain["config"].items() if k not in ("steps", "recompute_encoder")}
    plain = {k: v for k, v in plain.items() if k not in ("device", "renderer", "options")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"dreamer_core": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "gsplat", "numba", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass(frozen=True)
class RunFolder:
    """Names of the files, and checks before anything is written."""

    path: Path

    @property
    def splat(self) -> Path:
        return self.path / "splat.ply"

    @property
    def turntable(self) -> Path:
        return self.path / "turntable.mp4"

    @property
    def views(self) -> Path:
        return self.path / "views.png"

    @property
    def log(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Errors: InputError where there is nothing to resume, or a run that would be lost."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError("--out", "a folder", f"{self.path}, which is a file")
        if resume:
            if not self.state.is_file():
                raise InputError("--resume", f"a run with {self.state.name} in --out", f"{self.path} without one")
        elif not overwrite and any(p.exists() for p in (self.splat, self.log, self.state)):
            remedy = "add --resume to go on, --overwrite to replace it, or name another folder"
            raise InputError("--out", "a folder without a run", f"{self.path}, which holds one", remedy)

    def check_identity(self, identity: str) -> None:
        """Errors: InputError where the saved run had other settings."""
        if read_metadata(self.state).get("fingerprint") != identity:
            raise InputError(
                "--resume",
                "the settings that the run began with (only --steps may change)",
                f"other settings than in {self.log}",
                "repeat the options recorded there, or start another run with --out",
            )

    def remove_pictures(self) -> None:
        """Pictures and film of an earlier state of the run, which would pass for this one's."""
        for path in (self.turntable, self.views):
            path.unlink(missing_ok=True)

    def read_metrics(self, steps: int) -> list[dict[str, str]]:
        """Rows of an earlier part of the run, up to `steps`."""
        if not self.metrics.is_file():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) < steps]

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """All rows, atomically."""

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.metrics, write)

    def write_log(self, content: dict[str, Any]) -> None:
        """run.json, atomically."""
        text = json.dumps(jsonable(content), indent=2) + "\n"

        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        write_atomically(self.log, write)


def row(report: StepReport) -> dict[str, Any]:
    """One line of metrics.csv."""
    values = dataclasses.asdict(report)
    values["seconds"] = round(report.total_seconds, 5)
    values |= report.regularizers
    return {name: values.get(name, 0.0) for name in COLUMNS}
