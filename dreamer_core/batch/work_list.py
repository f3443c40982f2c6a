"""Work lists: one object a line, in JSON or CSV, with grids.

    {"defaults": {"preset": "fast", "checkpoint": "sdxl.safetensors"}}
    {"prompt": "a red mug", "seed": "0..3", "guidance.gamma": [0.3, 0.954]}
    {"prompt": "a {blue|green} chair", "loras": ["gold.safetensors:0.8"], "name": "chair"}

A name is an option of `generate` (`-` and `_` are the same) or any setting that `--show` prints. A range `A..B` and a
JSON list stand for several values, and every combination is one object; only `loras` takes a list as it is. A line
`defaults` holds for the lines after it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import NAME_AT_MOST, RESERVED
from .wildcards import DRAWS, WILDCARDS, expanded

Options = dict[str, Any]
SUITES = Path(__file__).with_name("suites")
"""Lists that come with the package; the command takes them by name."""
ALIASES = {"checkpoint": "model", "loras": "lora"}
WHOLE = ("lora", "export")
"""Options of which a list is one value."""
RANGE = re.compile(r"(\d+)\.\.(\d+)")
LARGEST = 100_000
"""Objects of a list; more is a slip of the pen in a range."""
TAKEN = ("index.json", "report.html")
"""Names of files beside the objects' folders."""


@dataclass(frozen=True)
class Item:
    """One object to make."""

    options: Mapping[str, Any]
    """Names as `generate` has them, without `name`; `prompt` is always among them."""
    line: int = 0
    named: str = ""
    """Its folder, where the list says one."""

    @property
    def key(self) -> str:
        """A hash of all options: the same in every process, another one where anything differs."""
        return hashlib.sha256(json.dumps(self.options, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The folder: the list's name for it, or prompt and seed in letters, and the start of its key."""
        if self.named:
            return self.named
        words = re.sub(r"[^a-z0-9]+", "-", str(self.options["prompt"]).lower()).strip("-")[:40].strip("-") or "object"
        seed = f"-s{self.options['seed']}" if "seed" in self.options else ""
        return f"{words}{seed}-{self.key[:8]}"


def list_path(name: str) -> Path:
    """The file of a list: a path, or the name of a suite. Errors: InputError."""
    path = Path(name).expanduser()
    suites = sorted(suite.stem for suite in SUITES.glob("*.jsonl"))
    if not path.is_file() and name in suites:
        return SUITES / f"{name}.jsonl"
    if not path.is_file():
        raise InputError("LIST", f"a file (.jsonl, .csv) or a suite ({', '.join(suites)})", f"{name}, which is neither")
    if path.suffix.lower() not in (".jsonl", ".csv"):
        raise InputError("LIST", "a name that ends in .jsonl or .csv", name)
    return path


def read_work_list(path: Path, shared: Mapping[str, Any] | None = None) -> tuple[list[Item], int]:
    """The objects of a list in its order, each once, and how many lines repeat another.

    `shared` are options that hold for every line, below its own. Errors: InputError that names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("LIST", "a text in UTF-8", f"{path} ({error})", "save it as UTF-8") from error
    except OSError as error:
        raise InputError("LIST", "a file that can be read", f"{path} ({error})") from error
    lines = _csv_lines(text) if path.suffix.lower() == ".csv" else _json_lines(text)
    found: dict[str, Item] = {}
    repeated, defaults = 0, dict(shared or {})
    for number, raw in lines:
        options = {**_canonical(raw, number)}
        if set(options) == {"defaults"}:
            given = options["defaults"]
            if not isinstance(given, dict):
                raise InputError(f"line {number}: defaults", "an object of names and values", given)
            defaults |= _canonical(given, number)
            continue
        for item in _items({**defaults, **options}, number, path.parent):
            if len(found) >= LARGEST:
                raise InputError(f"line {number}", f"a list of at most {LARGEST:,} objects", "more")
            known = found.setdefault(unicodedata.normalize("NFC", item.name).casefold(), item)  # one folder for some
            if known is item:
                continue
            if known.key == item.key:
                repeated += 1
            else:
                remedy = "a grid needs a name for each of its objects, or none"
                raise InputError(f"line {number}: name", f"another one than line {known.line}'s", item.name, remedy)
    if not found:
        raise InputError("LIST", "at least one line with a prompt", f"{path} without one")
    return list(found.values()), repeated


def _json_lines(text: str) -> Iterator[tuple[int, Options]]:
    for number, line in enumerate(text.split("\n"), 1):  # other marks of lines may stand within JSON's texts
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            value = json.loads(line, object_pairs_hook=_each_once)
        except ValueError as error:
            raise InputError(f"line {number}", "one JSON object", f"{line.strip()[:60]} ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f"line {number}", 'one JSON object, such as {"prompt": "a red mug"}', line.strip()[:60])
        yield number, value


def _each_once(pairs: list[tuple[str, Any]]) -> Options:
    """A JSON object. Errors: ValueError for a name that comes twice, of which JSON would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice} comes twice")
    return found


def _csv_lines(text: str) -> Iterator[tuple[int, Options]]:
    """Rows by their heading; an empty cell says nothing, and several LoRAs stand with semicolons between them.

    A heading without commas may have semicolons or tabs between its names, as spreadsheets of many countries write.
    """
    blank = len(text) - len(text.lstrip("\r\n"))
    heading_line = text[blank:].partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in heading_line), ",")
    reader = csv.DictReader(io.StringIO(text[blank:]), delimiter=delimiter, strict=True)
    try:
        for line, given in _csv_rows(reader):
            yield line + text[:blank].count("\n"), given
    except csv.Error as error:
        line = reader.line_num + text[:blank].count("\n")
        raise InputError(f"line {line}", "cells of CSV, each quote closed", str(error)) from error


def _csv_rows(reader: csv.DictReader[str]) -> Iterator[tuple[int, Options]]:
    heading = [name.strip() for name in reader.fieldnames or ()]
    if len(set(heading)) < len(heading):
        raise InputError("line 1", "each name once in the heading", ", ".join(heading))
    for row in reader:
        if None in row or None in row.values():
            raise InputError(
                f"line {reader.line_num}", f"{len(reader.fieldnames or ())} cells, as in the heading", "another number"
            )
        given: Options = {name.strip(): cell.strip() for name, cell in row.items() if cell.strip()}
        for name in ("lora", "loras"):
            if name in given:
                given[name] = [part.strip() for part in given[name].split(";") if part.strip()]
        if given:
            yield reader.line_num, given


def _canonical(given: Mapping[str, Any], line: int) -> Options:
    """Names as `generate` has them. Errors: InputError where two names mean the same."""
    found: Options = {}
    for name, value in given.items():
        plain = name if "." in name else name.replace("-", "_")
        plain = ALIASES.get(plain, plain)
        if plain in found:
            raise InputError(f"line {line}: {name}", "each option once", "another name of one that is there")
        found[plain] = value
    return found


def _items(options: Options, line: int, folder: Path) -> Iterator[Item]:
    """Every combination of a line's values."""
    if not isinstance(options.get("prompt"), (str, list)) or not options["prompt"]:
        raise InputError(f"line {line}: prompt", "what to make, such as 'a red mug'", options.get("prompt", "nothing"))
    draws, wildcards = options.pop(DRAWS, None), options.pop(WILDCARDS, None)
    named = options.pop("name", "")
    if not isinstance(named, (str, int)) or isinstance(named, bool):
        raise InputError(f"line {line}: name", "a text", named)
    named = str(named)
    if named and (not re.fullmatch(r"[\w][\w.-]*", named) or named.endswith(".")):
        raise InputError(f"line {line}: name", "letters, digits, - and _, for it names a folder", repr(named))
    if named.split(".")[0].lower() in RESERVED:
        raise InputError(f"line {line}: name", "none of Windows' devices", named)
    if len(named.encode()) > NAME_AT_MOST:
        raise InputError(f"line {line}: name", f"at most {NAME_AT_MOST} bytes", f"{len(named.encode())}")
    if named.lower() in TAKEN:
        raise InputError(f"line {line}: name", f"none of {', '.join(TAKEN)}, which the list itself has", named)
    place = folder / "wildcards" if wildcards is None else folder / str(wildcards)
    names = list(options)
    prompts: dict[str, list[str]] = {}  # each is parsed once, however many seeds it has
    for values in itertools.product(*(_values(name, options[name], line) for name in names)):
        chosen = dict(zip(names, values))
        said = str(chosen["prompt"])
        if said not in prompts:
            prompts[said] = list(expanded(said, draws, place, f"line {line}"))
        for prompt in prompts[said]:
            yield Item({**chosen, "prompt": prompt}, line, named)


def _values(name: str, value: Any, line: int) -> Sequence[Any]:
    """What an option stands for: several values of a grid, or the one."""
    if name in WHOLE:
        return _whole(value)
    if isinstance(value, list):
        if not value:
            raise InputError(f"line {line}: {name}", "at least one value", "an empty list")
        return [_plain(name, part, line) for part in value]
    match = RANGE.fullmatch(value.strip()) if isinstance(value, str) and name != "prompt" else None
    if match is None:
        return [_plain(name, value, line)]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + LARGEST:
        raise InputError(f"line {line}: {name}", f"A..B with A <= B and at most {LARGEST:,} values", value)
    return range(first, last + 1)


def _whole(value: Any) -> list[list[str]]:
    """A list as one value; a list of lists is a grid of them."""
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value):
        return [[str(one) for one in part] for part in value]
    return [[str(part) for part in value] if isinstance(value, list) else [str(value)]]


def _plain(name: str, value: Any, line: int) -> Any:
    """One value as JSON and CSV would both give it: whole numbers of texts become numbers; a pair gets its comma."""
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, dict):
        raise InputError(f"line {line}: {name}", "a value, or a list of values", "an object")
    if isinstance(value, str) and name == "seed" and value.strip().isdecimal():
        return int(value)
    return value


def write_list(items: Iterable[Item]) -> str:
    """The same objects as JSON Lines, one a line, without grids."""
    rows = ({**item.options, **({"name": item.named} if item.named else {})} for item in items)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
