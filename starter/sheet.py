"""One picture of a study: a row for each prompt, a block of views for each variant: `python -m starter.sheet`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dreamer_core.files import write_atomically

from .dataset import WORK

VIEWS = (0, 1, 3, 5)
"""Which of the six stored views (every 60 degrees from the front) are shown."""


def draw_sheet(folder: Path, variants: Sequence[str], cell: int = 72) -> Image.Image:
    """The pictures in `folder` of all prompts that every one of `variants` has a result for."""
    results = json.loads((folder / "results.json").read_text())
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for name, r in results.items():
        rows.setdefault((r["prompt"], r["seed"]), {})[r["variant"]] = name
    complete = {key: names for key, names in rows.items() if all(v in names for v in variants)}
    left, top, gap = 170, 28, 10
    block = len(VIEWS) * cell + gap
    sheet = Image.new("RGB", (left + len(variants) * block - gap, top + len(complete) * cell), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for j, variant in enumerate(variants):
        pen.text((left + j * block + 4, 6), variant, "black", font)
    for i, ((prompt, _), names) in enumerate(complete.items()):
        pen.text((6, top + i * cell + cell // 2 - 8), prompt, "black", font)
        for j, variant in enumerate(variants):
            with Image.open(folder / f"{names[variant]}.png") as strip:
                size = strip.height
                for k, view in enumerate(VIEWS):
                    picture = strip.crop((view * size, 0, (view + 1) * size, size)).resize((cell, cell))
                    sheet.paste(picture, (left + j * block + k * cell, top + i * cell))
    return sheet


def draw_grid(folder: Path, variant: str, columns: int = 4, cell: int = 128) -> Image.Image:
    """All objects of one variant, two views of each above its prompt."""
    results = json.loads((folder / "results.json").read_text())
    names = [name for name, r in results.items() if r["variant"] == variant]
    rows = -(-len(names) // columns)
    width, height = 2 * cell, cell + 22
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(14)
    for i, name in enumerate(names):
        x, y = i % columns * width, i // columns * height
        with Image.open(folder / f"{name}.png") as strip:
            for k, view in enumerate((0, 1)):
                picture = strip.crop((view * strip.height, 0, (view + 1) * strip.height, strip.height))
                grid.paste(picture.resize((cell, cell)), (x + k * cell, y))
        pen.text((x + cell, y + cell + 2), results[name]["prompt"], "black", font, anchor="ma")
    return grid


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.sheet", description=__doc__)
    parser.add_argument("--folder", type=Path, default=WORK / "3d" / "methods")
    parser.add_argument("--variants", nargs="+", default=["tsm", "ism", "sds"])
    parser.add_argument("--grid", action="store_true", help="only the first variant's objects, two views of each")
    parser.add_argument("--cell", type=int, default=72, help="pixels per picture")
    parser.add_argument("--out", type=Path, default=Path("sheet.jpg"))
    options = parser.parse_args(arguments)
    if options.grid:
        sheet = draw_grid(options.folder, options.variants[0])
    else:
        sheet = draw_sheet(options.folder, options.variants, options.cell)
    write_atomically(options.out, lambda path: sheet.save(path, quality=88))
    print(options.out, sheet.size)


if __name__ == "__main__":
    main()
