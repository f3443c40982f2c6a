"""Makes one object of a work list in its folder: begins it, goes on with it, or finds it made."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..batch.index import Outcome, State, write_text
from ..batch.store import Files, read_files, write_files
from ..batch.work_list import Item
from ..errors import DivergenceError, InputError, ReplicaError
from . import generate
from .devices import resolve_devices
from .exports import parse_exports
from .item_options import item_args
from .options import check_renderer
from .own_folder import own_folder
from .run_folder import RunFolder
from .session import Interrupt
from .teachers import Teachers

ITEM, LOG, SPLAT, ERROR = "item.json", "run.json", "splat.ply", "error.txt"
"""In the folder of an object: which one it is, what its run says, the result, and the trace of an unexpected error."""


class Workshop:
    """Makes objects one after another; the teacher stays while it is the same."""

    def __init__(self, shared: Sequence[str] = (), interrupt: Interrupt | None = None) -> None:
        self.shared = tuple(shared)
        self.interrupt = interrupt
        self.teachers = Teachers(keep=True)

    def make(self, item: Item, path: Path) -> Outcome:
        """Make the object into the folder `path`, whatever there is of it; never raises but for Ctrl-C."""
        began = time.perf_counter()
        try:
            if (done := finished(item, path, self.shared)) is not None:
                return done
            code = self._run(item, path)
        except Exception as error:
            with suppress(OSError):
                if not isinstance(error, (InputError, DivergenceError, ReplicaError, OSError, MemoryError)):
                    write_text(path / ERROR, traceback.format_exc())
            return Outcome("failed", one_line(error), *_made(path), seconds=round(time.perf_counter() - began, 2))
        state: State = "interrupted" if code else "complete"
        return Outcome(state, "", *_made(path), seconds=round(time.perf_counter() - began, 2))

    def make_files(self, item: Item, before: Files) -> tuple[Outcome, Files]:
        """The same in a folder that is gone afterwards: what there was of the object, and what there is."""
        with TemporaryDirectory(prefix="dreamer-xl-") as folder:
            path = Path(folder) / item.name
            write_files(path, before)
            outcome = self.make(item, path)
            return outcome, read_files(path)

    def _run(self, item: Item, path: Path) -> int:
        args = item_args(item, self.shared)
        everything = generate.checked(args)
        assert everything is not None  # --show is refused in lists
        device, *further = resolve_devices(args.device)
        args.out = Path(item.name)  # which run.json says, wherever the folder lies
        folder = RunFolder(path)
        args.resume = folder.state.is_file()
        args.overwrite = not args.resume and (path / ITEM).is_file()  # else it is somebody else's
        with own_folder(path, args.prompt):
            write_text(path / ITEM, json.dumps(described(item, self.shared), indent=1, ensure_ascii=False) + "\n")
            (path / ERROR).unlink(missing_ok=True)
            place = generate.Place(
                *(folder, device, check_renderer(args.renderer, device), parse_exports(args.export)),
                *(self.teachers, self.interrupt, tuple(further)),
            )
            return generate.make_from_prompt(args, everything, place)


def described(item: Item, shared: Sequence[str]) -> dict[str, Any]:
    """What tells an object from another one in the same folder."""
    return {"key": item.key, "shared": list(shared), "options": dict(item.options)}


def finished(item: Item, path: Path, shared: Sequence[str]) -> Outcome | None:
    """The outcome of an object that is made already. Errors: InputError where the folder holds another one."""

    def read(name: str) -> bytes | None:
        return (path / name).read_bytes() if (path / name).is_file() else None

    done = finished_by(item, read, shared, str(path))
    return done if (path / SPLAT).is_file() else None


def finished_by(item: Item, read: Callable[[str], bytes | None], shared: Sequence[str], place: str) -> Outcome | None:
    """The same by a function that reads a file of the object's folder, which is called `place` in errors."""
    known, log = (_parsed(read(name)) for name in (ITEM, LOG))
    if not known:
        if log:
            raise InputError(
                "name", "a folder of this list's own", f"{place} with a run of `generate`", "rename either"
            )
        return None
    if {name: known.get(name) for name in ("key", "shared")} != {"key": item.key, "shared": list(shared)}:
        remedy = "give it another name, or remove that folder"
        raise InputError("name", "a folder that holds the same object", f"{place} with one of other options", remedy)
    if log.get("status") != "complete":
        return None
    return Outcome("complete", "", *_counts(log), seconds=float(log.get("seconds", 0)))


def _made(path: Path) -> tuple[int, int]:
    """Steps and Gaussians of what the folder holds."""
    try:
        return _counts(_parsed((path / LOG).read_bytes()))
    except OSError:
        return 0, 0


def _counts(log: dict[str, Any]) -> tuple[int, int]:
    return int(log.get("steps_made", 0)), int(log.get("gaussians", 0))


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def one_line(error: BaseException) -> str:
    """What went wrong, as the command line says it."""
    text = (str(error).splitlines() or [""])[0].strip()[:300]
    if isinstance(error, (InputError, DivergenceError, ReplicaError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
