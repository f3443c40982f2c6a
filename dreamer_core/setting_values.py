"""The values of settings by their dotted names: read, shown, parsed from text, changed."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Container, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from .errors import InputError
from .settings import Choice, Setting, declared_settings, own_settings

Config = TypeVar("Config")


def values(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting in force; a choice gives its name and the chosen one's settings."""
    own = {setting.field: setting for setting in own_settings(type(config))}
    for field in fields(config):
        value = getattr(config, field.name)
        name = f"{path}.{field.name}" if path else field.name
        if field.name in own and isinstance(own[field.name].knob, Choice):
            yield name, value.name
            yield from values(value, path)
        elif field.name in own:
            yield name, value
        elif is_dataclass(value):
            yield from values(value, name)


def nested(config: Any) -> dict[str, Any]:
    """All settings in force as nested dictionaries, for JSON; a choice gives its name beside its settings."""
    tree: dict[str, Any] = {}
    for name, value in values(config):
        *path, leaf = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[leaf] = value
    return tree


def show(config: Any, without: Container[str] = ()) -> str:
    """All settings but those `without`, one per line, as `--set` takes them."""

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return "\n".join(f"{name}={text(value)}" for name, value in values(config) if name not in without)


TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_value(text: str, kind: Any) -> Any:
    """`text` as the type `kind`: a number, a word, true or false, none, or numbers separated by commas.

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
        if text.lower() not in TRUE + FALSE:
            raise ValueError("true or false")
        return text.lower() in TRUE
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}.get(kind, str(kind))) from None


def parsed(config: Any, assignments: Mapping[str, str], option: str = "--set") -> dict[str, Any]:
    """Values of the settings named, from their texts. Errors: InputError for an unknown name or an unusable text."""
    known = {s.name: s for s in declared_settings(type(config))}
    found: dict[str, Any] = {}
    for name, text in assignments.items():
        setting, end = _find(known, name, option)
        try:
            if isinstance(setting.knob, Choice):
                found[name] = setting.knob.named(text).name
            else:
                found[name] = parse_value(text, typing.get_args(setting.kind)[end] if end is not None else setting.kind)
        except ValueError as error:
            raise InputError(f"{option} {name}", str(error), text) from error
    return found


def _find(known: Mapping[str, Setting], name: str, option: str) -> tuple[Setting, int | None]:
    """The setting of that name, and which value of a pair is meant where the name says so."""
    if name in known:
        return known[name], None
    stem, _, end = name.rpartition("_")
    pair = known.get(stem)
    if pair is not None and pair.is_pair and end in pair.knob.ends:
        return pair, pair.knob.ends.index(end)
    if now := [s.name for s in known.values() if name and s.knob.was == name]:
        raise InputError(option, "the name of a setting", name, f"it is now {' and '.join(now)}; see CHANGELOG.md")
    names = [n for s in known.values() for n in (s.name, *(f"{s.name}_{e}" for e in s.knob.ends if s.is_pair))]
    near = [n for n in known if n.rpartition(".")[2] == name] or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    remedy = f"did you mean {' or '.join(near)}?" if near else "generate --show prints all names"
    raise InputError(option, "the name of a setting", name, remedy)


def changed(config: Config, given: Mapping[str, Any], option: str = "") -> Config:
    """`config` with all given values at once, each under its dotted name; every other setting stays.

    A choice made anew brings its own defaults. `option` begins the names in errors.
    Errors: InputError for an unknown name, a value out of bounds, values that do not go together, and a setting of
    another variant than the chosen one, which would do nothing.
    """
    lead = f"{option} " if option else ""
    known = {s.name: s for s in declared_settings(type(config))}
    chosen: dict[str, Any] = {}
    tree: dict[str, Any] = {}
    for name, value in given.items():
        setting, end = _find(known, name, option or "settings")
        if isinstance(setting.knob, Choice):
            chosen[name] = (setting, value)
        elif end is None:
            tree[name] = value
        else:
            pair = list(tree.get(setting.name, dict(values(config))[setting.name]))
            pair[end] = value
            tree[setting.name] = tuple(pair)
    try:
        for name, (setting, value) in chosen.items():
            config = _with_variant(config, name, setting, value)
        current = dict(values(config))
        for name in tree:
            if name not in current:
                owners = sorted({s.variant for s in declared_settings(type(config)) if s.name == name})
                which = _choice_of(config, name)
                remedy = f"leave it out, or set {which} to one of these"
                raise InputError(name, f"a setting of {current[which]}", f"one of {', '.join(owners)}", remedy)
        return _replaced(config, tree)
    except InputError as error:
        if not lead or error.field.startswith("-"):
            raise
        raise InputError(f"{lead}{error.field}", error.expected, error.got, error.remedy) from error


def _choice_of(config: Any, name: str) -> str:
    """Name of the choice that a variant's setting belongs to: it stands in the same group."""
    path = name.rpartition(".")[0]
    return next(s.name for s in declared_settings(type(config)) if isinstance(s.knob, Choice) and s.path == path)


def _with_variant(config: Any, name: str, setting: Setting, value: Any) -> Any:
    """The choice made anew; one that is made already keeps its settings."""
    assert isinstance(setting.knob, Choice)
    if dict(values(config)).get(name) == value:
        return config
    try:
        variant = setting.knob.named(value)
    except ValueError as error:
        raise InputError(name, str(error), value) from error
    return _at(config, name.split("."), variant())


def _at(config: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return replace(config, **{head: _at(getattr(config, head), rest, value) if rest else value})


def _replaced(config: Any, tree: Mapping[str, Any]) -> Any:
    """`config` with values by dotted name, innermost first, so that each dataclass is checked once with all of them."""
    hints = {s.field: s for s in own_settings(type(config))}
    new: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in hints and isinstance(hints[field.name].knob, Choice):
            names = {f.name for f in fields(value)}
            own = {n: v for n, v in tree.items() if n in names}
            new |= {field.name: _replaced(value, own)} if own else {}
        elif field.name in hints:
            new |= {field.name: tree[field.name]} if field.name in tree else {}
        elif is_dataclass(value):
            prefix = f"{field.name}."
            inner = {n.removeprefix(prefix): v for n, v in tree.items() if n.startswith(prefix)}
            new |= {field.name: _replaced(value, inner)} if inner else {}
    return replace(config, **new) if new else config
