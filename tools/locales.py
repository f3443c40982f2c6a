"""Writes locales/en from the nodes themselves, and keeps the keys of every other language in step with it.

    python -m tools.locales                       # starts the prepared ComfyUI for its /object_info
    python -m tools.locales --server HOST:PORT    # asks a running one

A text that is new in English enters the other languages in English and is named, so that it can be translated; one that
has gone leaves them. Inputs keep their names in every language, for error messages, help and the API use them; the
labels that a few are shown under are translated.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import comfyui
from .graph_format import Info
from .help_pages import all_inputs, ours

FOLDER = comfyui.ROOT / "locales"
Texts = dict[str, Any]


def english(info: Info) -> Texts:
    """nodeDefs.json: title, description, tooltips of inputs and outputs of every node."""
    return {name: _node(node) for name, node in sorted(ours(info).items())}


def _node(node: dict[str, Any]) -> Texts:
    inputs: Texts = {}
    for name, spec, _ in all_inputs(node["input"]):
        shown = {"name": spec[1]["display_name"]} if "display_name" in spec[1] else {}
        known = inputs.setdefault(key(name), {**shown, "tooltip": spec[1]["tooltip"]})
        known["tooltip"] = _shared(known["tooltip"], spec[1]["tooltip"])
    outputs = {str(i): {"tooltip": tip} for i, tip in enumerate(node["output_tooltips"])}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def _shared(first: str, second: str) -> str:
    """The sentences with which both begin, for an input that the options of a choice describe differently: an editor
    looks up one text for all of them. The first, where they begin otherwise.
    """
    parts = [re.split(r"(?<=\.) ", text) for text in (first, second)]
    count = next((i for i, (a, b) in enumerate(zip(*parts)) if a != b), min(map(len, parts)))
    return " ".join(parts[0][:count]) or first


def key(name: str) -> str:
    """An input's name as the frontend looks it up: dots are its separators."""
    return name.replace(".", "_")


def in_step(texts: Texts, reference: Texts, missing: list[str], path: str = "") -> Texts:
    """`texts` with exactly the keys of `reference`; what it lacks is taken from there and noted in `missing`."""
    found: Texts = {}
    for name, value in reference.items():
        here, own = f"{path}{name}", texts.get(name)
        if isinstance(value, dict):
            found[name] = in_step(own if isinstance(own, dict) else {}, value, missing, f"{here}.")
        elif isinstance(own, str):
            found[name] = own
        else:
            found[name] = value
            missing.append(here)
    return found


def main() -> None:
    reference = english(comfyui.described(__doc__))
    for folder in sorted(p for p in FOLDER.iterdir() if p.is_dir()):
        path = folder / "nodeDefs.json"
        missing: list[str] = []
        texts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        texts = reference if folder.name == "en" else in_step(texts, reference, missing)
        path.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        print(f"{folder.name}: {len(texts)} nodes" + "".join(f"\n  to translate: {name}" for name in missing))


if __name__ == "__main__":
    main()
