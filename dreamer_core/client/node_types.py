"""What a server says about its node types (`/object_info`)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .errors import Refused

NodeTypes = Mapping[str, Any]
"""Node type -> its description, as the server sent it."""
CHOICE = "COMFY_DYNAMICCOMBO_V3"
"""A choice that brings inputs of its own."""
SETTABLE = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", CHOICE)
SHOWN = 12
"""Choices that are listed of a long list."""


@dataclass(frozen=True)
class Input:
    """One input of a node type."""

    kind: str
    choices: list[str] = field(default_factory=list)
    """What a list input offers."""
    limits: tuple[object, object] | None = None
    """Least and greatest value."""
    branches: dict[str, object] = field(default_factory=dict)
    """Choice -> the inputs that it brings, as the server sent them."""

    def allowed(self) -> str:
        """The choices or the range, for a listing."""
        if self.choices:
            return f"[{', '.join(self.choices[:SHOWN])}{', ...' if len(self.choices) > SHOWN else ''}]"
        return f"{self.limits[0]} to {self.limits[1]}" if self.limits else ""


def inputs_of(known: NodeTypes, kind: str, values: Mapping[str, Any]) -> dict[str, Input]:
    """The inputs of a node type by name, those of the options that `values` choose included (dotted)."""
    return _inputs(_mapping(_mapping(known.get(kind)).get("input")), values, "")


def _inputs(parts: Mapping[str, Any], values: Mapping[str, Any], prefix: str) -> dict[str, Input]:
    found: dict[str, Input] = {}
    for part in ("required", "optional"):
        for name, description in _mapping(parts.get(part)).items():
            full = f"{prefix}{name}"
            made = _input(description)
            if made is None:
                continue
            found[full] = made
            chosen = values.get(full)
            if isinstance(chosen, str) and chosen in made.branches:
                found |= _inputs(_mapping(made.branches[chosen]), values, f"{full}.")
    return found


def _input(description: object) -> Input | None:
    """[type, options] or [[choice, ...], options]; None where a pack describes its input in another way."""
    if not isinstance(description, list) or not description:
        return None
    kind = description[0]
    options = _mapping(description[1]) if len(description) > 1 else {}
    if isinstance(kind, list):
        return Input("COMBO", [str(choice) for choice in kind])
    offered = options.get("options")
    offered = offered if isinstance(offered, list) else []
    if kind == CHOICE:
        branches = {str(o["key"]): o.get("inputs") for o in offered if isinstance(o, dict) and "key" in o}
        return Input(CHOICE, list(branches), branches=branches)
    limits = (options["min"], options["max"]) if "min" in options and "max" in options else None
    return Input(str(kind), [str(choice) for choice in offered] if kind == "COMBO" else [], limits)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def choices(known: NodeTypes, kind: str, name: str) -> list[str]:
    """What a list input offers on this server."""
    found = inputs_of(known, kind, {}).get(name)
    return found.choices if found else []


def pick(wanted: str, offered: list[str], option: str) -> str:
    """The choice that was meant: exact, or the only one with that beginning or file name. Errors: Refused."""
    if wanted in offered:
        return wanted
    low = wanted.lower()
    by_name = [o for o in offered if PurePosixPath(o.replace("\\", "/")).name.lower() in (low, f"{low}.safetensors")]
    by_beginning = [o for o in offered if o.lower().startswith(low)]
    for found in (by_name, by_beginning):
        if len(found) == 1:
            return found[0]
    near = difflib.get_close_matches(wanted, offered, 5, 0.4) or offered[:5]
    raise Refused(f"{option}: the server has no {wanted!r}; it has e.g. {', '.join(near) or 'nothing at all'}")
