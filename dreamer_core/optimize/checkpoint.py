"""A run on disk: safetensors, written to a temporary name and renamed."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import InputError
from ..files import write_atomically
from .learning_rates import LearningRates
from .saved_tensors import wrong
from .state import OptimizationState


def save_state(state: OptimizationState, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the state atomically; a reader sees the old file or the new one.

    Errors: OSError, a full disk's too, for which safetensors has an error of its own.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    described = {"format": "dreamer-xl-state-1", **(metadata or {})}
    try:
        write_atomically(path, lambda temporary: save_file(state.tensors(), temporary, metadata=described))
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def read_metadata(path: Path, field: str = "resume") -> dict[str, str]:
    """The metadata of a saved state; `field` is what the user calls it.

    Errors: InputError where the file is no such state; OSError where it cannot be read, which may pass.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(field, "a saved run", f"{path} ({error})") from error
    if metadata.get("format") != "dreamer-xl-state-1":
        raise InputError(field, "a run saved by this program", f"{path} of another kind")
    return metadata


def load_state(
    path: Path, rates: LearningRates, device: torch.device | str = "cpu", field: str = "resume"
) -> OptimizationState:
    """The state saved at `path`. Errors: as `read_metadata`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_metadata(path, field)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(field, "a saved run", f"{path} ({error})") from error
    if fault := wrong(tensors):
        raise InputError(field, "a saved run", f"{path}, in which {fault}")
    return OptimizationState.from_tensors(tensors, rates, device)
