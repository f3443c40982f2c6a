"""What passes between our nodes, and the small things that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.validation import validate_node_input

from ..dreamer_core.errors import DivergenceError, InputError
from ..dreamer_core.prompts import ViewPrompts

CATEGORY = "3d/dreamer xl"
CHOOSE = "choose one of these"

DreamerPrompt = io.Custom("DREAMER_PROMPT")
DreamerCameras = io.Custom("DREAMER_CAMERAS")
DreamerGuidance = io.Custom("DREAMER_GUIDANCE")
DreamerClip = io.Custom("DREAMER_CLIP")
DreamerDensity = io.Custom("DREAMER_DENSITY")
DreamerRegularizers = io.Custom("DREAMER_REGULARIZERS")
DreamerRegion = io.Custom("DREAMER_REGION")


@dataclass(frozen=True)
class PromptBundle:
    """Value of a DREAMER_PROMPT socket."""

    views: ViewPrompts
    sizes: Mapping[str, int] = field(default_factory=dict)
    """SDXL's size conditioning where the user set it (width, crop_w, target_width, ...); else the render size."""


@contextmanager
def errors_named(node: str) -> Iterator[None]:
    """Errors about the user's values, files and memory begin with the node's name."""
    try:
        yield
    except InputError as error:
        raise ValueError(f"{node}: {error}") from error
    except DivergenceError as error:
        raise RuntimeError(f"{node}: {error}") from error
    except OSError as error:
        raise OSError(f"{node}: cannot read or write a file: {error}") from error
    except torch.OutOfMemoryError as error:  # stays one, for ComfyUI then puts all models away
        raise torch.OutOfMemoryError(f"{node}: out of memory: {error}") from error


def chosen(group: Mapping[str, Any] | str | None, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of a DynamicCombo. Errors: InputError for a choice that is none of `keys`.

    ComfyUI drops an unknown choice, so a node without one would run; where the schema accepts all inputs it arrives as
    the word that was sent. A link arrives as None before it runs.
    """
    if isinstance(group, Mapping) and group.get(name) in keys:
        return dict(group)
    got = group.get(name) if isinstance(group, Mapping) else group
    raise InputError(name, f"one of {', '.join(keys)}", "nothing, or a link" if got is None else repr(got), CHOOSE)


def wrong_choice(group: Mapping[str, Any] | str | None, name: str, keys: tuple[str, ...]) -> str:
    """What is wrong with a DynamicCombo's choice, for `validate_inputs`; empty where nothing is."""
    try:
        chosen(group, name, keys)
    except InputError as error:
        return str(error)
    return ""


def wrong_link(node: type[io.ComfyNode], received: Mapping[str, str], also: Mapping[str, str]) -> str:
    """What is wrong with the types of a node's links, which ComfyUI leaves to a `validate_inputs` with `input_types`.

    `also` names further types that an input takes. Empty where nothing is wrong.
    """
    wanted = {i.id: i.get_io_type() for i in node.define_schema().inputs}
    for name, kind in received.items():
        if kind != also.get(name) and not validate_node_input(kind, wanted[name]):
            return str(InputError(name, f"a link of type {wanted[name]}", kind, "link another output"))
    return ""


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
            return f"{name}: expected a number from {low} to {high}, got {value}"
    if any(value is None for value in values.values()):
        return True
    try:
        build()
    except InputError as error:
        return str(error)
    return True
