"""The index of a list on its way, and a line for every object on the terminal."""

from __future__ import annotations

import sys
import time

from ..batch.index import INDEX, Index, Outcome
from ..batch.store import Store
from ..batch.work_list import Item
from ..teacher_preview import duration


class Board:
    """Keeps the index, and tells."""

    def __init__(self, index: Index, store: Store) -> None:
        self.index, self.store = index, store
        self.spent = 0.0
        self.made = 0
        self.workers = 1
        """Objects that are made at a time."""

    def write(self) -> None:
        """index.json as it is now."""
        self.store.write(INDEX, self.index.text().encode())

    def begin(self, item: Item) -> None:
        """An object is being made."""
        self.index.set(item.name, Outcome("running"))
        self.write()
        self.say(f"{item.name}: begins{self.left()}")

    def end(self, item: Item, outcome: Outcome) -> None:
        """What has become of it."""
        self.index.set(item.name, outcome)
        self.write()
        if outcome.state == "complete":
            self.made += 1
            self.spent += outcome.seconds
        why = f": {outcome.error}" if outcome.error else ""
        self.say(f"{item.name}: {outcome.state} after {outcome.steps} steps{why}")

    def left(self) -> str:
        """How long the rest will take, by the objects made so far."""
        if not self.made:
            return ""
        todo = len(self.index.items) - self.index.count("complete") - self.index.count("failed")
        return f", about {duration(todo * self.spent / self.made / self.workers)} to go"

    def say(self, text: str) -> None:
        """A line with how much of the list is done."""
        done = self.index.count("complete") + self.index.count("failed")
        clock = time.strftime("%H:%M:%S")
        print(f"{clock} [{done}/{len(self.index.items)}] {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is being made any more."""
        self.index.settle()
        self.write()

    def tell(self, *, interrupted: bool) -> int:
        """Print what has become of the list; the exit code."""
        print(f"{self.store.place}/{INDEX}: {self.index.summary()}")
        for name, outcome in self.index.outcomes.items():
            if outcome.state == "failed":
                print(f"  {name}: {outcome.error}", file=sys.stderr)
        if interrupted:
            print("Interrupted. The same command goes on with it.", file=sys.stderr)
            return 130
        return 1 if self.index.count("failed") else 0
