"""What passes between our nodes, and the small things that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io

from ..dreamer_core.errors import DivergenceError, InputError
from ..dreamer_core.prompts import ViewPrompts

CATEGORY = "3d/dreamer xl"

DreamerPrompt = io.Custom("DREAMER_PROMPT")
DreamerCameras = io.Custom("DREAMER_CAMERAS")
DreamerGuidance = io.Custom("DREAMER_GUIDANCE")
DreamerClip = io.Custom("DREAMER_CLIP")
DreamerDensity = io.Custom("DREAMER_DENSITY")
DreamerRegularizers = io.Custom("DREAMER_REGULARIZERS")


@dataclass(frozen=True)
class PromptBundle:
    """Value of a DREAMER_PROMPT socket."""

    views: ViewPrompts
    sizes: Mapping[str, int] = field(default_factory=dict)
    """SDXL's size conditioning where the user set it (width, crop_w, target_width, ...); else the render size."""


@contextmanager
def errors_named(node: str) -> Iterator[None]:
    """Errors about the user's values begin with the node's name."""
    try:
        yield
    except InputError as error:
        raise ValueError(f"{node}: {error}") from error
    except DivergenceError as error:
        raise RuntimeError(f"{node}: {error}") from error


def chosen(group: Mapping[str, Any] | None, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of a DynamicCombo; an unknown choice reaches a node as nothing at all."""
    if not group or group.get(name) not in keys:
        got = "an unknown choice" if not group else repr(group.get(name))
        raise InputError(name, f"one of {', '.join(keys)}", got)
    return dict(group)


def validated(node: type[io.ComfyNode], values: Mapping[str, Any], build: Callable[[], object]) -> bool | str:
    """What `validate_inputs` returns: the bounds of the inputs it names, then whatever `build` finds wrong.

    ComfyUI leaves min and max of inputs that `validate_inputs` names to it. Linked values arrive as None.
    """
    schema = {i.id: i for i in node.define_schema().inputs}
    for name, value in values.items():
        low, high = getattr(schema[name], "min", None), getattr(schema[name], "max", None)
        if value is None or low is None or high is None:
            continue
        if not low <= value <= high:
            return f"{name}: expected a number in [{low}, {high}], got {value}"
    if any(value is None for value in values.values()):
        return True
    try:
        build()
    except InputError as error:
        return str(error)
    return True
