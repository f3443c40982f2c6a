"""What every format of splat files is: one declaration, in the file that reads and writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..gaussians import Gaussians


class Writer(Protocol):
    """Writes Gaussians of our world, atomically. Errors: InputError, which names `field`."""

    def __call__(
        self, gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
    ) -> None: ...


@dataclass(frozen=True)
class Format:
    """A format of splat files."""

    suffix: str
    """In lower case, with its dot. Of two parts only without `read`: the format of the last part reads such files."""
    title: str
    """What `info` calls a file of it."""
    tip: str
    """What it keeps and who takes it: a phrase for choosing one."""
    read: Callable[[Path, str], Gaussians] | None = None
    """The Gaussians of a file, in our world; the text names the option in errors."""
    write: Writer | None = None
    recognise: Callable[[Path], bool] | None = None
    """Whether a file of this suffix is one, by its content; None where nothing else has the suffix."""
    metadata: Callable[[Path], dict[str, Any]] | None = None
    """What was recorded inside a file; None where the format holds no metadata."""
    require: Callable[[str], object] | None = None
    """Raises InputError where a package that writing needs is missing; the text names the option in it."""
