"""Out of memory in a step: half as many views at once from then on, down to one. Results are equal up to rounding."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)

SAID = ("out of memory", "allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
"""In the texts of errors without a type of their own: of processors, drivers and their libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)


def free_caches() -> None:
    """Give back what was computed in vain, and what torch keeps of it for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    elif torch.xpu.is_available():
        torch.xpu.empty_cache()


@dataclass
class Portion:
    """How many of a step's views are encoded and guided at once."""

    total: int
    recompute: bool
    """Whether views are encoded one at a time in any case."""
    views: int | None = None
    """None: all, with their activations kept for the backward pass. A number encodes so many, and once more later."""

    def halve(self, step: int, error: BaseException) -> None:
        """Go on with half as many; says so. Errors: torch.OutOfMemoryError where a single view is too much."""
        now = self.total if self.views is None else self.views
        if now == 1 and (self.views is not None or self.recompute):
            first = (str(error).splitlines() or [""])[0]
            text = f"one view at a time is too much; use memory low or a smaller resolution ({first[:120]})"
            raise torch.OutOfMemoryError(text) from error
        self.views = max(1, now // 2)
        log.warning("Out of memory: from step %d on, %d of %d views at a time", step, self.views, self.total)


def parts(count: int, size: int | None) -> Iterator[slice]:
    """Slices of at most `size` that make up `count`."""
    step = size or max(count, 1)
    for start in range(0, count, step):
        yield slice(start, start + step)
