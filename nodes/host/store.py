"""Runs on disk, so that a cancelled one goes on, a longer one extends a shorter one, and a repeated one is instant.

A run is named by a hash of everything its result depends on except the number of steps (`identity`). The states of a
run are kept by step; whoever asks for n steps gets the latest state with at most n. A run without a name is not kept.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import folder_paths
import torch

from ...dreamer_core.errors import InputError
from ...dreamer_core.files import remove_abandoned
from ...dreamer_core.optimize import LearningRates, OptimizationState, load_state, save_state

MAX_BYTES = 4 << 30
MAX_STATES = 40
SUFFIX = ".safetensors"


def runs_folder() -> Path:
    """Where the runs of this ComfyUI are kept."""
    return Path(folder_paths.get_system_user_directory("dreamer_xl")) / "runs"


def remove_leftovers() -> None:
    """What a process that was killed had begun to save."""
    remove_abandoned(runs_folder().glob("*/.*"))


class RunStore:
    """The states of one run in a folder that all runs share."""

    def __init__(self, key: str | None, root: Path | None = None) -> None:
        self._root = root or runs_folder()
        self._folder = None if key is None else self._root / key
        self._written: int | None = None

    def load(self, steps: int, rates: LearningRates, device: torch.device) -> OptimizationState | None:
        """The latest state with at most `steps` steps, or None; a broken file counts as none.

        Errors: torch.OutOfMemoryError, where the state is whole and the device is full.
        """
        for step in sorted(self.steps(), reverse=True):
            if step > steps:
                continue
            path = self._path(step)
            try:
                state = load_state(path, rates, device)
                with suppress(OSError):
                    os.utime(path)  # used now: dropped last
                return state
            except torch.OutOfMemoryError:
                raise
            except (OSError, RuntimeError) as error:  # may be over next time
                logging.warning("Dreamer XL: a saved run could not be read this time (%s)", error)
            except (InputError, KeyError) as error:
                logging.warning("Dreamer XL: dropping a broken saved run (%s)", error)
                path.unlink(missing_ok=True)
        return None

    def save(self, state: OptimizationState) -> None:
        """Write the state in place of the one this store wrote before; drop the oldest runs beyond the limits.

        One without a step says nothing, and one that ended in NaN or without Gaussians would only end so again.
        """
        if self._folder is None or state.step == 0 or state.ruined:
            return
        try:
            self._write(state)
        except OSError as error:
            logging.warning("Dreamer XL: the run could not be saved and cannot be resumed (%s)", error)
            return
        before, self._written = self._written, state.step
        try:
            if before is not None and before != state.step:
                self._path(before).unlink(missing_ok=True)
            self._trim()
        except OSError as error:  # other runs are saved and dropped meanwhile
            logging.warning("Dreamer XL: old runs could not be dropped this time (%s)", error)

    def _write(self, state: OptimizationState) -> None:
        try:
            save_state(state, self._path(state.step))
        except OSError:  # another run may have dropped the folder while it was empty
            save_state(state, self._path(state.step))

    def forget(self) -> None:
        """Drop what is kept of this run."""
        for step in self.steps():
            with suppress(OSError):
                self._path(step).unlink()

    def steps(self) -> list[int]:
        """The steps at which this run is saved."""
        if self._folder is None:
            return []
        return [int(p.stem) for p in self._folder.glob(f"*{SUFFIX}") if p.stem.isdecimal()]

    def _path(self, step: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{step:07}{SUFFIX}"

    def _trim(self) -> None:
        """Drop the least recently used states; the one just written stays, whatever the clock says."""
        remove_abandoned(self._root.glob("*/.*"))
        found, newest = [], None if self._written is None else self._path(self._written)
        for path in self._root.glob(f"*/*{SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.stem.isdecimal():
                found.append((status.st_mtime_ns, status.st_size, path))
        total = 0
        ranked = sorted(found, key=lambda one: (one[2] == newest, one), reverse=True)
        for rank, (_, size, path) in enumerate(ranked):
            total += size
            if rank > 0 and (rank >= MAX_STATES or total > MAX_BYTES):
                path.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    path.parent.rmdir()
