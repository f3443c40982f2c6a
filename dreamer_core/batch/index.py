"""index.json: what has become of every object of a list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..files import write_atomically
from .work_list import Item

State = Literal["waiting", "running", "complete", "interrupted", "failed"]
INDEX = "index.json"


@dataclass(frozen=True)
class Outcome:
    """Of one object."""

    state: State
    error: str = ""
    """One line, where it failed."""
    steps: int = 0
    gaussians: int = 0
    seconds: float = 0.0
    """Of the last time that it was worked on."""


class Index:
    """States of the objects of a list, kept in a text that `write` brings to its place after every change."""

    def __init__(self, items: Sequence[Item], source: str) -> None:
        self.items = {item.name: item for item in items}
        self.outcomes: dict[str, Outcome] = {name: Outcome("waiting") for name in self.items}
        self.source = source

    def set(self, name: str, outcome: Outcome) -> None:
        """The state of one object."""
        self.outcomes[name] = outcome

    def count(self, state: State) -> int:
        """Objects in a state."""
        return sum(outcome.state == state for outcome in self.outcomes.values())

    def settle(self) -> None:
        """Nothing is running any more: what was is interrupted."""
        for name, outcome in self.outcomes.items():
            if outcome.state == "running":
                self.outcomes[name] = replace(outcome, state="interrupted")

    def text(self) -> str:
        """As it is written."""
        rows = [
            {"name": name, "line": item.line, "key": item.key, **asdict(self.outcomes[name]), "options": item.options}
            for name, item in self.items.items()
        ]
        counts = Counter(outcome.state for outcome in self.outcomes.values())
        content = {"list": self.source, "counts": counts, "objects": rows}
        return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"

    def summary(self) -> str:
        """3 of 40 complete, 1 failed, 36 waiting."""
        states: Iterable[State] = ("failed", "interrupted", "waiting")
        more = [f"{n} {state}" for state in states if (n := self.count(state))]
        return ", ".join([f"{self.count('complete')} of {len(self.items)} complete", *more])


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def foreign(content: bytes | None) -> bool:
    """Whether the content of an index.json, None where there is none, is another program's."""
    if content is None:
        return False
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return True
    return not (isinstance(found, dict) and isinstance(found.get("objects"), list))


def read_index(path: Path) -> dict[str, Any]:
    """The content of an index.json. Errors: OSError, ValueError."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise ValueError("not an index of a work list")
    return content
