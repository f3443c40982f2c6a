"""One typed declaration for every setting; options, widgets, help, locales and checks follow from it.

    class ClipConfig(Settings):
        threshold: Annotated[float, Knob("Largest gradient of a pixel. Published: 0.05.", 1e-4, 100.0, 0.01)] = 0.05

A field that holds another `Settings` is a group: its settings are named `group.name`. A field annotated with a `Choice`
holds one of several dataclasses, each with settings of its own; they are named as if they stood beside the choice.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, ClassVar

from .errors import InputError


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
    multiline: bool = False
    """Of a text: whether it may take several lines."""
    unit: str = ""
    """Of a number, for errors."""
    was: str = ""
    """The dotted name that it had before, for those who still write that."""


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
        elif self.kind in (bool, str):
            if not isinstance(value, self.kind):
                raise InputError(label, {bool: "true or false", str: "text"}[self.kind], repr(value))
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
        bounds = (bound for bound in (self.knob.low, self.knob.high) if bound is not None)
        low, high = (str(bound) if isinstance(bound, int) else f"{bound:.10g}" for bound in bounds)
        return f"{kind} from {low} to {high} {self.knob.unit}".rstrip()


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
                inner_settings = [replace(s, variant=variant.name) for s in declared_settings(variant, path)]
                if twice := {s.field for s in inner_settings} & {f.name for f in fields(cls)}:
                    raise TypeError(f"{variant.__name__}: {', '.join(twice)} would stand for two settings")
                found += inner_settings
        elif is_dataclass(hints[field.name][0]):
            inner = f"{path}.{field.name}" if path else field.name
            found += declared_settings(hints[field.name][0], inner)
    return tuple(found)
