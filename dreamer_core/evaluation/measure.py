"""One number, and how it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number that can be compared with others of the same name and protocol, and with no others."""

    name: str
    value: float | None
    """None where it could not be taken."""
    protocol: str
    """How it was taken, in words."""
    better: str = "higher"
    """higher, lower, or neither where it only explains the others."""
    missing: str = ""
    """What it lacks, and what to do."""


def shown(measures: Sequence[Measure]) -> str:
    """A line for each with its protocol."""
    width = max(len(m.name) for m in measures)
    return "\n".join(
        f"{m.name:<{width}}  {'-' if m.value is None else format(m.value, '.4f'):>8}  {m.missing or m.protocol}"
        for m in measures
    )
