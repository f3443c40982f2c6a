"""What tells one run from another: everything that decides its state at a step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from ..setting_values import nested
from ..settings import Settings
from .recipe import Recipe

RESULTS = 2
"""Counts up when the same recipe begins to give another result, so that no older state is gone on from."""


def plain(value: Any) -> Any:
    """Settings, dataclasses, paths and tuples as plain JSON values.

    Errors: TypeError for anything else, whose text might differ between processes or be the same for different things.
    """
    if isinstance(value, Settings):
        return plain(nested(value))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, PurePath):
        return str(value)
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise TypeError(f"a {type(value).__name__} cannot be part of a run's identity: {str(value)[:80]}")
    return value


@dataclass(frozen=True)
class Identity:
    """A run's recipe and what goes into it: prompt, start, teacher, each as words or as a hash of its content."""

    recipe: Recipe
    inputs: Mapping[str, Any]

    @cached_property
    def described(self) -> dict[str, Any]:
        """Plain values, as they are saved beside a state."""
        described: dict[str, Any] = plain({"results": RESULTS, **self.inputs, "config": self.recipe})
        return described

    @cached_property
    def key(self) -> str:
        """A hash of all of it, the same in every process."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """ "name: saved -> this run's" of everything that a saved description says otherwise."""
        before, after = _flat(saved), _flat(self.described)
        return [
            f"{name}: {before.get(name, 'nothing')} -> {after.get(name, 'nothing')}"
            for name in {**before, **after}
            if before.get(name, ...) != after.get(name, ...)
        ]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Dotted names of nested values; those of the configuration are as `--set` takes them."""
    if not isinstance(value, dict):
        return {name: value}
    prefix = f"{name}." if name and name != "config" else ""
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}").items()}
