"""Nodes that have another name since an earlier version: ComfyUI replaces them in graphs that were saved before."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_api.latest import ComfyAPI, io

RENAMED: tuple[io.NodeReplace, ...] = ()
"""Made by `renamed`; none so far."""


def renamed(old: str, new: str, inputs: Iterable[str], *, changed: dict[str, str] | None = None) -> io.NodeReplace:
    """A node of the id `old` is `new` today; `inputs` are the old one's that every saved graph has, in their order.

    `changed` names inputs that are called otherwise today. Outputs keep their order. ComfyUI drops an input that is not
    named here, and fails on a graph that lacks one that is.
    """
    names = list(inputs)
    mapping = [{"new_id": (changed or {}).get(name, name), "old_id": name} for name in names]
    return io.NodeReplace(new, old, old_widget_ids=names, input_mapping=mapping)


async def offer_replacements(replacements: Iterable[io.NodeReplace] = RENAMED) -> None:
    """Tell ComfyUI; the front end asks it when it opens a graph, and the server applies it to the API's."""
    for one in replacements:
        await ComfyAPI().node_replacement.register(one)
