"""Any field of a configuration by its dotted name: `density.start=50`."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ..errors import InputError

Config = TypeVar("Config")


def field_names(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all fields, nested ones included."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from field_names(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


def parse_value(text: str, kind: Any) -> Any:
    """`text` as the annotated type `kind`: numbers, words, true/false, none, or numbers separated by commas.

    Errors: ValueError with what was expected.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return parse_value(text, kind)
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError(f"one of {', '.join(map(str, arguments))}")
        return text
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[]").split(",")]
        if len(parts) != len(arguments):
            raise ValueError(f"{len(arguments)} numbers separated by a comma")
        return tuple(parse_value(part, inner) for part, inner in zip(parts, arguments))
    if kind is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.lower() not in words:
            raise ValueError("true or false")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}.get(kind, str(kind))) from None


Tree = dict[str, Any]
"""Field -> its new value, or the tree of a nested dataclass."""


def parsed(config: Any, name: str, text: str, option: str = "--set") -> Any:
    """The value that `text` means for the field `name`.

    Errors: InputError for an unknown name, with the nearest known ones, and for an unusable value.
    """
    known = [n for n, _ in field_names(config)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        near += [n for n in known if n.rpartition(".")[2] == name and n not in near]
        remedy = f"did you mean {' or '.join(near)}?" if near else "generate --show prints all names"
        raise InputError(option, "the name of a setting", name, remedy)
    *path, leaf = name.split(".")
    for part in path:
        config = getattr(config, part)
    try:
        return parse_value(text, typing.get_type_hints(type(config))[leaf])
    except ValueError as error:
        raise InputError(f"{option} {name}", str(error), text) from error


def _replaced(config: Any, tree: Tree, option: str, prefix: str = "") -> Any:
    """`config` with all values of the tree at once, innermost first: each dataclass is checked once."""
    values = {
        name: _replaced(getattr(config, name), value, option, f"{prefix}{name}.")
        if is_dataclass(getattr(config, name))
        else value
        for name, value in tree.items()
    }
    try:
        return replace(config, **values)
    except InputError as error:
        own = [name for name in tree if not is_dataclass(getattr(config, name))]
        blamed = error.field.rpartition(".")[2]
        names = [blamed] if blamed in own else own
        where = ", ".join(prefix + name for name in names)
        raise InputError(f"{option} {where}", error.expected, error.got, error.remedy) from error


def apply_overrides(config: Config, assignments: Sequence[str], option: str = "--set") -> Config:
    """`config` with every NAME=VALUE applied, the last of each name; the dataclasses' own checks apply to the whole.

    Errors: InputError.
    """
    tree: Tree = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise InputError(option, "NAME=VALUE", assignment)
        value = parsed(config, name, text, option)
        *path, leaf = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[leaf] = value
    changed: Config = _replaced(config, tree, option)
    return changed


def show(config: Any) -> str:
    """All settings, one per line, as `--set` takes them."""

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    assert dataclasses.is_dataclass(config)
    return "\n".join(f"{name}={text(value)}" for name, value in field_names(config))
