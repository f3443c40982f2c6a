"""One typed declaration for every setting; options, widgets, help, locales and checks follow from it.

    class ClipConfig(Settings):
        threshold: Annotated[float, Knob("Largest gradient of a pixel. Published: 0.05.", 1e-4, 100.0, 0.01)] = 0.05

A field that holds another `Settings` is a group: its settings are named `group.name`. A field annotated with a `Choice`
holds one of several dataclasses, each with settings of its own; they are named as if they stood beside the choice.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, ClassVar, TypeVar

from .errors import InputError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Knob:
    """What people see of a setting, and its bounds."""

    tip: str
    """One or two sentences with the unit and good values. Of a pair: of its first value."""
    low: float | None = None
    high: float | None = None
    """Bounds of a number, inclusive; of a pair, of both values."""
    step: float | None = None
    """By which a widget counts."""
    label: str = ""
    """Shown instead of the name."""
    advanced: bool = False
    """Folded away in the editor."""
    flag: bool = False
    """Whether the command line has an option of its own for it, beside --set."""
    second_tip: str = ""
    """Of a pair: of its second value."""
    ends: tuple[str, str] = ("min", "max")
    """Of a pair: how its two values are told apart in names."""
    ordered: bool = True
    """Of a pair: whether the first value may not exceed the second."""
    unset: float | str | None = None
    """The widget's value that leaves the preset's; None: a number below the bounds, or the word "preset"."""
    secret: bool = False
    """Not offered by widgets."""


@dataclass(frozen=True)
class Choice(Knob):
    """One of several dataclasses, each with a `name`, a docstring and settings of its own."""

    of: tuple[type[Settings], ...] = ()

    def named(self, name: object) -> type[Settings]:
        """The one of that name. Errors: ValueError with what was expected."""
        for variant in self.of:
            if variant.name == name:
                return variant
        raise ValueError(f"one of {', '.join(v.name for v in self.of)}")


class Settings:
    """Base of the frozen dataclasses whose fields are settings; checks them against their declarations."""

    group: ClassVar[str] = ""
    """Name of the group in errors."""
    name: ClassVar[str] = ""
    """Of a variant of a choice: what it is chosen by."""

    def __post_init__(self) -> None:
        for declared in own_settings(type(self)):
            declared.check(getattr(self, declared.field), self.label(declared.field))

    @classmethod
    def summary(cls) -> str:
        """The first sentence of its docstring, without the full stop."""
        return " ".join((cls.__doc__ or "").split()).partition(". ")[0].rstrip(".")

    @classmethod
    def label(cls, field: str) -> str:
        """A field's full name."""
        return f"{cls.group}.{field}" if cls.group else field


@dataclass(frozen=True)
class Setting:
    """A declared setting."""

    field: str
    kind: Any
    """float, int, bool, str, a Literal, a pair, or one of these or None."""
    knob: Knob
    default: Any
    path: str = ""
    """Dotted names of the groups it lies in."""
    variant: str = ""
    """Of a choice: the one it belongs to."""

    @property
    def name(self) -> str:
        """The dotted name that people use."""
        return f"{self.path}.{self.field}" if self.path else self.field

    @property
    def options(self) -> tuple[str, ...]:
        """Of a word: those there are."""
        if isinstance(self.knob, Choice):
            return tuple(variant.name for variant in self.knob.of)
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is typing.Literal else ()

    @property
    def is_pair(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    @property
    def is_optional(self) -> bool:
        return typing.get_origin(self.kind) in (typing.Union, types.UnionType)

    @property
    def number(self) -> type | None:
        """int or float where it is a number or a pair of numbers."""
        inner = next((k for k in (self.kind, *typing.get_args(self.kind)) if k in (int, float)), None)
        return inner if inner is not None and not self.options else None

    def check(self, value: Any, label: str) -> None:
        """Errors: InputError where `value` is not what is declared."""
        if isinstance(self.knob, Choice):
            if not isinstance(value, self.knob.of):
                raise InputError(label, f"an object of {', '.join(v.__name__ for v in self.knob.of)}", repr(value))
        elif self.options:
            if value not in self.options:
                raise InputError(label, f"one of {', '.join(self.options)}", value)
        elif self.number is not None and not (value is None and self.is_optional):
            given = (value if isinstance(value, tuple) else ()) if self.is_pair else (value,)
            if len(given) != 1 + self.is_pair or not all(self._fits(v) for v in given):
                raise InputError(label, self.expected(), value)
            if self.is_pair and self.knob.ordered and given[0] > given[1]:
                raise InputError(label, "the lower value first", value)

    def _fits(self, value: object) -> bool:
        low, high = self.knob.low, self.knob.high
        if low is None or high is None:
            raise TypeError(f"{self.name}: a number must declare its bounds")
        numbers = int if self.number is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and low <= value <= high

    def expected(self) -> str:
        """What it takes, in words."""
        kind = "whole number" if self.number is int else "number"
        kind = f"two {kind}s" if self.is_pair else f"a {kind}"
        low, high = (f"{bound:.10g}" for bound in (self.knob.low, self.knob.high) if bound is not None)
        return f"{kind} from {low} to {high}"


@cache
def _annotated(cls: type) -> dict[str, tuple[Any, Knob | None]]:
    """Type and knob of every field."""
    found: dict[str, tuple[Any, Knob | None]] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        knob = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Knob)), None)
        found[name] = (hint.__origin__ if knob is not None else hint, knob)
    return found


def own_settings(cls: type) -> tuple[Setting, ...]:
    """The settings that a dataclass itself declares, without its groups and the variants of its choices."""
    hints, found = _annotated(cls), []
    for field in fields(cls):
        kind, knob = hints[field.name]
        if knob is None:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        found.append(Setting(field.name, kind, knob, default))
    return tuple(found)


def declared_settings(cls: type, path: str = "") -> tuple[Setting, ...]:
    """All settings of a dataclass: its own, those of its groups, and those of every variant of its choices."""
    hints, found = _annotated(cls), []
    own = {setting.field: setting for setting in own_settings(cls)}
    for field in fields(cls):
        if field.name in own:
            found.append(replace(own[field.name], path=path))
            knob = own[field.name].knob
            for variant in knob.of if isinstance(knob, Choice) else ():
                found += [replace(s, variant=variant.name) for s in declared_settings(variant, path)]
        elif is_dataclass(hints[field.name][0]):
            inner = f"{path}.{field.name}" if path else field.name
            found += declared_settings(hints[field.name][0], inner)
    return tuple(found)


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


def show(config: Any) -> str:
    """All settings, one per line, as `--set` takes them."""

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return "\n".join(f"{name}={text(value)}" for name, value in values(config))


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
    near = [n for n in known if n.rpartition(".")[2] == name] or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
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
                which, of = next((n, v) for n, v in current.items() if n == _choice_of(config, name))
                raise InputError(name, f"a setting of {of}", f"one of {', '.join(owners)}", f"set {which} as well")
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
