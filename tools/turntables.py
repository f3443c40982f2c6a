"""Draws docs/pictures/turntables.webp: several splats turning beside each other.

    python -m tools.turntables outputs/a-red-mushroom/splat.ply outputs/a-yellow-chair/splat.ply ...

Needs the environment of `python3 dev.py demo` (.venv).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dreamer_core.cameras import turntable
from dreamer_core.formats import load_gaussians
from dreamer_core.gaussians import Gaussians
from dreamer_core.media import contact_sheet, render_views, write_webp

from . import comfyui

OUT = comfyui.ROOT / "docs" / "pictures" / "turntables.webp"
WHITE = (1.0, 1.0, 1.0)


def frames(objects: Sequence[Gaussians], columns: int, count: int, size: int) -> Iterator[Tensor]:
    """Pictures [H, W, 3] of all objects from `count` sides."""
    cameras = turntable(count, size, elevation=15.0, radius=3.5, fov=0.61)
    with torch.no_grad():
        for views in zip(*(render_views(g, cameras, WHITE) for g in objects)):
            yield contact_sheet(list(views), columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("splats", nargs="+", type=Path, help="splat files, in rows from the left")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--size", type=int, default=160, help="pixels per side of one object")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    objects = [load_gaussians(path) for path in options.splats]
    write_webp(frames(objects, options.columns, options.frames, options.size), options.out, 12)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
