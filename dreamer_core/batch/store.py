"""Where the objects of a list end up: a folder, or object storage by its URL (fsspec)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from ..files import write_atomically

Files = dict[str, bytes]
"""Names within an object's folder, with slashes -> contents."""
LAST = ("run.json",)
"""Written after all others: it says that an object is complete."""


class Store:
    """Files by paths with slashes below one place."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.local = None if "://" in place else Path(place)
        """The folder, where it is one of this machine."""
        self._files: Any = None
        self._root = ""
        if self.local is None:
            try:
                import fsspec

                self._files, self._root = fsspec.core.url_to_fs(place)
            except (ImportError, ValueError) as error:
                raise InputError("--out", "a folder, or a URL that fsspec knows", f"{place} ({error})") from error

    def read(self, path: str) -> bytes | None:
        """A file; None where there is none."""
        try:
            if self.local is not None:
                return (self.local / path).read_bytes()
            found: bytes = self._files.cat_file(f"{self._root}/{path}")
            return found
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """A file, whole or not at all."""
        if self.local is not None:
            write_atomically(self.local / path, lambda temporary: temporary.write_bytes(content))
            return
        target = f"{self._root}/{path}"
        self._files.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        self._files.pipe_file(target, content)  # object storage shows an object when it is whole

    def read_folder(self, name: str) -> Files:
        """All files of an object's folder."""
        if self.local is not None:
            return read_files(self.local / name)
        return {inside: self._files.cat_file(path) for inside, path in self._stored(name).items()}

    def _stored(self, name: str) -> dict[str, str]:
        """Names within an object's folder in object storage -> whole paths there."""
        root = f"{self._root}/{name}"
        found = self._files.find(root) if self._files.exists(root) else ()
        return {str(PurePosixPath(path).relative_to(root)): path for path in found}

    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """All files of an object's folder in place of those there were; what says complete comes last."""
        for path in sorted(files, key=lambda path: (path in LAST, path)):
            self.write(f"{name}/{path}", files[path])
        if self.local is not None:
            for path in read_names(self.local / name):
                if path not in files:
                    (self.local / name / path).unlink(missing_ok=True)
            return
        for inside, path in self._stored(name).items():
            if inside not in files:
                self._files.rm_file(path)


def read_names(folder: Path) -> list[str]:
    """Files of a folder and its folders, hidden ones left out."""
    if not folder.is_dir():
        return []
    inside = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in inside if not path.name.startswith("."))


def read_files(folder: Path) -> Files:
    """The contents of a folder."""
    return {name: (folder / name).read_bytes() for name in read_names(folder)}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Contents into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
