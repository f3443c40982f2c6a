"""The folder of one run: its files, its log, and what may go on in it."""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..editing.anchors import ANCHORS
from ..errors import InputError
from ..files import write_atomically
from ..formats import WRITABLE
from ..formats.splat_files import own_sidecars
from ..media import FILMS
from ..optimize import LearningRates, OptimizationState, StepReport, load_state
from ..optimize.checkpoint import read_metadata
from ..optimize.identity import RESULTS, Identity, plain
from ..optimize.memory import MemoryPlan
from ..optimize.regularizers import TERMS

COLUMNS = (
    "step", "t", "s", "gradient_norm", "image_gradient_norm", "clipped", "gaussians", "depth", "nonfinite",
    "network_calls", "network_evaluations", "seconds", *TERMS, *ANCHORS,
)  # fmt: skip


SPLATS = {suffix[1:]: f"splat{suffix}" for suffix in WRITABLE if suffix != ".ply"}
ANIMATIONS = {suffix[1:]: f"turntable{suffix}" for suffix in FILMS if suffix != ".mp4"}
EXPORTS = {**SPLATS, **ANIMATIONS}
"""Format that `--export` names -> the file in the run's folder."""


NAMED = 5
"""So many differing settings are named in an error."""


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
    def drawn(self) -> Path:
        """Of --init views: what the Gaussians were fitted to."""
        return self.path / "drawn.png"

    @property
    def log(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def trials(self) -> Path:
        """Of --best-of: what every trial was worth, and the seed that was chosen."""
        return self.path / "best_of.json"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Errors: InputError where there is nothing to resume, or a run that would be lost."""
        if resume:
            if not self.state.is_file():
                raise InputError("--resume", f"a run with {self.state.name} in --out", f"{self.path} without one")
        elif not overwrite and any(p.exists() for p in (self.splat, self.log, self.state)):
            remedy = "add --resume to go on, --overwrite to replace it, or name another folder"
            raise InputError("--out", "a folder without a run", f"{self.path}, which holds one", remedy)
        elif not overwrite and (
            others := [p.name for p in (self.metrics, self.trials, self.drawn, *self._pictures()) if p.exists()]
        ):
            got = f"{self.path} with {', '.join(others)}"
            remedy = "name another folder, or add --overwrite to replace them"
            raise InputError("--out", "a folder without files that a run would replace", got, remedy)

    def metadata(self) -> dict[str, str]:
        """What is saved with the state. Errors: InputError."""
        with self._reading():
            return read_metadata(self.state, "--resume")

    def described(self, name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """An entry of the saved metadata. Errors: InputError where it is no JSON object."""
        try:
            found = json.loads(metadata.get(name, "{}"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError("--resume", "a saved run", f"{self.state}, whose {name} cannot be read")
        return found

    def memory_plan(self, mode: str) -> MemoryPlan | None:
        """The saved plan; None where it was made for another `memory` than `mode`. Errors: InputError."""
        metadata = self.metadata()
        if metadata.get("memory_mode", mode) != mode:
            return None
        found = self.described("memory", metadata)
        if found.keys() != {field.name for field in dataclasses.fields(MemoryPlan)}:
            raise InputError("--resume", "a saved run", f"{self.state}, whose memory plan is {found}")
        return MemoryPlan(**found)

    def load(self, rates: LearningRates, device: torch.device) -> OptimizationState:
        """The saved state. Errors: InputError."""
        with self._reading():
            return load_state(self.state, rates, device, "--resume")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError("--resume", "a run that can be read", f"{self.state} ({error})") from error

    def check_identity(self, identity: Identity) -> None:
        """Errors: InputError naming what differs, where the saved run was another one."""
        metadata = self.metadata()
        if metadata.get("fingerprint") == identity.key:
            return
        saved = self.described("identity", metadata)
        if saved.get("results") != RESULTS:
            raise InputError(
                "--resume",
                "a run whose results this version can go on with",
                "one of another version",
                "start another run with --out, or replace this one with --overwrite",
            )
        found = identity.differences(saved)
        remedy = f"repeat the options recorded in {self.log}, or start another run with --out"
        if len(found) == 1 and found[0].startswith("schedule_steps: "):
            remedy = f"add --set schedule_steps={found[0].split()[1]}, the length that its schedule began with"
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise InputError(
            "--resume",
            "the settings that the run began with (only --steps, --memory and cleanup may change)",
            "; ".join(found[:NAMED]) + more,
            remedy,
        )

    def remove_pictures(self) -> None:
        """Pictures and film of an earlier state of the run, which would pass for this one's."""
        for path in (*self._pictures(), *own_sidecars(self.splat)):
            path.unlink(missing_ok=True)

    def _pictures(self) -> list[Path]:
        return [self.turntable, self.views, *(self.path / name for name in EXPORTS.values())]

    def clear(self, *, keep_trials: bool = False) -> None:
        """Remove everything of an earlier run, before anything of another one is written but what its trials found."""
        self.remove_pictures()
        for path in (self.state, self.splat, self.metrics, self.log, *(() if keep_trials else (self.trials,))):
            path.unlink(missing_ok=True)

    def drawn_by(self, seed: int) -> Path:
        """Of --init views, what a trial's Gaussians were fitted to."""
        return self.path / f"drawn-{seed}.png"

    def read_metrics(self, steps: int) -> list[dict[str, str]]:
        """Rows of an earlier part of the run, up to `steps`; what cannot be read is left out, with a word."""
        if not self.metrics.is_file():
            return []
        rows, bad = [], 0
        with self.metrics.open(newline="", encoding="utf-8", errors="replace") as file:
            for found in csv.DictReader(file):
                if not str(found.get("step")).isdecimal() or None in found or None in found.values():
                    bad += 1
                elif int(found["step"]) < steps:
                    rows.append(found)
        if bad:
            print(f"{self.metrics}: {bad} lines are left out, which cannot be read", file=sys.stderr, flush=True)
        return rows

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
        text = json.dumps(plain(content), indent=2) + "\n"

        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        write_atomically(self.log, write)


def row(report: StepReport) -> dict[str, Any]:
    """One line of metrics.csv."""
    values = dataclasses.asdict(report)
    values["seconds"] = round(report.total_seconds, 5)
    values |= report.regularizers
    return {name: values.get(name, 0.0) for name in COLUMNS}
