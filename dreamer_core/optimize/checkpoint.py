"""A run on disk: safetensors, written to a temporary name and renamed."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import InputError
from ..files import write_atomically
from .learning_rates import LearningRates
from .state import OptimizationState


def save_state(state: OptimizationState, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the state atomically; a reader sees the old file or the new one."""
    from safetensors.torch import save_file

    described = {"format": "dreamer-xl-state-1", **(metadata or {})}
    write_atomically(path, lambda temporary: save_file(state.tensors(), temporary, metadata=described))


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a saved state. Errors: InputError where the file is no such state."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError("resume", "a saved run", f"{path} ({error})") from error
    if metadata.get("format") != "dreamer-xl-state-1":
        raise InputError("resume", "a run saved by this program", f"{path} of another kind")
    return metadata


def load_state(path: Path, rates: LearningRates, device: torch.device | str = "cpu") -> OptimizationState:
    """The state saved at `path`. Errors: InputError where the file is no such state."""
    from safetensors.torch import load_file

    read_metadata(path)
    return OptimizationState.from_tensors(load_file(path), rates, device)
