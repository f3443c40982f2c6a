"""Fills the tables in web/docs/<NodeId>.md from the nodes themselves; the words are the pages' own.

python -m tools.help_pages                       # starts the prepared ComfyUI for its /object_info
python -m tools.help_pages --server HOST:PORT    # asks a running one
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from . import comfyui
from .graph_format import CHOICE, Info

FOLDER = comfyui.ROOT / "web" / "docs"
LOWEST = "lowest"
"""Where an untouched widget lies below it: the lowest value that means something (`nodes.widgets.LOWEST`)."""
FILE = re.compile(r"\.[a-z]\w+$")
"""The end of a choice that is a file: a page must not depend on which of them are there."""
BEGIN, END = "<!-- written by tools.help_pages -->", "<!-- end -->"


def ours(info: Info) -> dict[str, Any]:
    """The nodes of this pack."""
    return {name: node for name, node in info.items() if name.startswith("DreamerXL")}


def all_inputs(inputs: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any], str]]:
    """Name, description and condition of every input, those of all options of a choice included.

    An input that several options have alike comes once, with the options it belongs to; where they differ in default,
    bounds or words, once for each of them.
    """
    for part in ("required", "optional"):
        for name, spec in (inputs.get(part) or {}).items():
            yield f"{prefix}{name}", spec, ""
            if spec[0] != CHOICE:
                continue
            found: dict[str, list[tuple[list[Any], list[str]]]] = {}
            for option in spec[1]["options"]:
                for inner, inner_spec, _ in all_inputs(option["inputs"], f"{prefix}{name}."):
                    alike = next((keys for known, keys in found.get(inner, []) if known == inner_spec), None)
                    if alike is None:
                        found.setdefault(inner, []).append((inner_spec, [option["key"]]))
                    else:
                        alike.append(option["key"])
            for inner, variants in found.items():
                for inner_spec, keys in variants:
                    yield inner, inner_spec, "" if len(keys) == len(spec[1]["options"]) else ", ".join(keys)


def values(spec: list[Any]) -> str:
    """What an input takes, and its default."""
    options = spec[1] if len(spec) > 1 else {}
    default = options.get("default")
    if spec[0] == CHOICE:
        return ", ".join(f"`{o['key']}`" for o in options["options"])
    if spec[0] == "COMBO" or isinstance(spec[0], list):
        offered = options.get("options", []) if spec[0] == "COMBO" else spec[0]
        if default is None or default not in offered or len(offered) > 8 or any(FILE.search(str(o)) for o in offered):
            return f"a choice{f'; `{default}`' if default is not None else ''}"
        return ", ".join(f"**`{o}`**" if o == default else f"`{o}`" for o in offered)
    if spec[0] in ("INT", "FLOAT"):
        low, high = options.get("min"), options.get("max")
        if LOWEST in options:
            return f"{number(options[LOWEST])} to {number(high)}, or **{number(default)}**"
        whole = isinstance(high, int) and high > 2**62
        bounds = "0 or more" if whole else f"{number(low)} to {number(high)}"
        return f"{bounds}; **{number(default)}**"
    if spec[0] == "BOOLEAN":
        return f"**{'on' if default else 'off'}**"
    if spec[0] == "STRING":
        return f"text; **{default}**" if default else "text"
    return str(spec[0])


def number(value: Any) -> str:
    return f"{value:,}".rstrip("0").rstrip(".") if isinstance(value, float) and value == int(value) else f"{value:,}"


def tables(node: dict[str, Any]) -> str:
    """The inputs and outputs of a node as Markdown."""
    lines = ["## Inputs", "", "| input | values; **default** | meaning |", "|---|---|---|"]
    for name, spec, condition in all_inputs(node["input"]):
        options = spec[1] if len(spec) > 1 else {}
        shown = f" “{options['display_name']}”" if "display_name" in options else ""
        only = f" *({condition})*" if condition else ""
        lines.append(f"| `{name}`{shown}{only} | {values(spec)} | {cell(options.get('tooltip', ''))} |")
    lines += ["", "## Outputs", "", "| output | type | meaning |", "|---|---|---|"]
    for name, kind, tooltip in zip(node["output_name"], node["output"], node["output_tooltips"]):
        lines.append(f"| `{name}` | {kind} | {cell(tooltip or '')} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def filled(page: str, node: dict[str, Any]) -> str:
    """A page with fresh tables. Errors: ValueError where it has no place for them."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{node['display_name']}: its page has no {BEGIN} ... {END}")
    return f"{head}{BEGIN}\n\n{tables(node)}\n\n{END}{tail}"


def main() -> None:
    info = comfyui.described(__doc__)
    for name, node in ours(info).items():
        path = FOLDER / f"{name}.md"
        if not path.is_file():
            print(f"{name}: no page yet; write {path.name} with a title, some words and {BEGIN} {END}")
            continue
        path.write_text(filled(path.read_text(encoding="utf-8"), node), encoding="utf-8", newline="\n")
        print(name)


if __name__ == "__main__":
    main()
