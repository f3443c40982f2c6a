"""Renders example_workflows/*.jpg: what a graph makes on the starter, or a drawing of a graph that needs more.

    python -m tools.thumbnails                       # all of them, on the prepared ComfyUI; minutes on a CPU
    python -m tools.thumbnails lora_swap --steps 80  # one of them, with fewer steps
    python -m tools.thumbnails --graphs              # the drawings only, in a second

Needs the environment of `python3 dev.py demo` (.venv).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from dreamer_core.cameras import orbit_cameras
from dreamer_core.client.graph import Graph, read_graph
from dreamer_core.client.run import execute
from dreamer_core.client.server import Server
from dreamer_core.files import write_atomically
from dreamer_core.initializers.start_files import gaussians_from_file
from dreamer_core.media import render_views, to_uint8

from . import comfyui
from .workflows import FOLDER, all_workflows

SIZE = 512
"""Pixels per side of a thumbnail."""
FOV, RADIUS, ELEVATION, AZIMUTH = 0.61, 3.6, 18.0, 30.0
MESH_POINTS = 120_000
"""Gaussians on the surface of a mesh, to render it with the same rasterizer."""
DARK, PANEL, INK, FAINT = (24, 25, 28), (44, 47, 53), (226, 228, 232), (120, 126, 136)


def picture(path: Path, size: int, azimuth: float = AZIMUTH) -> Image.Image:
    """A splat file, or a mesh file by Gaussians on its surface, on white."""
    mesh = path.suffix == ".glb"
    gaussians = gaussians_from_file(path, count=MESH_POINTS, opacity=0.99, size=0.8) if mesh else None
    gaussians = gaussians_from_file(path) if gaussians is None else gaussians
    cameras = orbit_cameras([azimuth], ELEVATION, RADIUS, FOV, 2 * size)
    (image,) = render_views(gaussians, cameras, (1.0, 1.0, 1.0))
    return Image.fromarray(to_uint8(image)).resize((size, size), Image.Resampling.LANCZOS)


async def queued(url: str, graph: Graph, folder: Path) -> list[Path]:
    """The files that a server makes of a graph."""
    async with Server(url) as server:
        return await execute(server, graph, folder)


def run_picture(name: str, url: str, steps: int | None) -> Image.Image:
    """What a graph makes: the object from two sides, or its two objects side by side."""
    graph = read_graph(FOLDER / "api" / f"{name}.json")
    if steps is not None:
        for data in graph.values():
            if data["class_type"] == "DreamerXLOptimize":
                data["inputs"]["steps"] = steps
    with tempfile.TemporaryDirectory() as scratch:
        made = asyncio.run(queued(url, graph, Path(scratch)))
        objects = sorted((p for p in made if p.suffix in (".ply", ".glb")), key=lambda p: (p.suffix != ".ply", p.name))
        if name == "lora_swap":
            objects.reverse()  # lora-with comes before lora-without
        half = SIZE // 2
        shown = [(p, AZIMUTH) for p in objects] if len(objects) > 1 else [(objects[0], AZIMUTH), (objects[0], 210.0)]
        sheet = Image.new("RGB", (SIZE, half if len(shown) < 3 else SIZE), "white")
        for i, (path, azimuth) in enumerate(shown[:4]):
            sheet.paste(picture(path, half, azimuth), (half * (i % 2), half * (i // 2)))
    return sheet


def graph_picture(name: str, size: tuple[int, int] = (SIZE, SIZE // 2)) -> Image.Image:
    """A drawing of the graph: its groups, nodes and links, with the nodes' names."""
    graph = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    boxes = [g["bounding"] for g in graph["groups"]]
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    margin, factor = 2 * 12, 2  # drawn twice as large, for smooth lines
    scale = (factor * size[0] - 2 * margin) / right, (factor * size[1] - 2 * margin) / bottom
    sheet = Image.new("RGB", (factor * size[0], factor * size[1]), DARK)
    draw = ImageDraw.Draw(sheet)

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + x * scale[0], margin + y * scale[1]

    nodes = {n["id"]: n for n in graph["nodes"]}
    for group in graph["groups"]:
        x, y, w, h = group["bounding"]
        color = tuple(int(c * 0.45) for c in _rgb(group["color"]))
        draw.rounded_rectangle((*place(x, y), *place(x + w, y + h)), 10, fill=color)
    for _, source, output, target, entry, _ in graph["links"]:
        a, b = nodes[source], nodes[target]
        x0, y0 = place(a["pos"][0] + a["size"][0], a["pos"][1] + 14 + 20 * output)
        x1, y1 = place(b["pos"][0], b["pos"][1] + 14 + 20 * entry)
        bend = max(20.0, abs(x1 - x0) / 2)
        curve = [_bezier(t / 24, (x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)) for t in range(25)]
        draw.line(curve, fill=FAINT, width=3, joint="curve")
    for node in nodes.values():
        box = (*place(node["pos"][0], node["pos"][1] - 30), *place(*_corner(node)))
        draw.rounded_rectangle(box, 8, fill=PANEL)
    for node in nodes.values():
        x, y = place(node["pos"][0], node["pos"][1] - 30)
        width = node["size"][0] * scale[0] - 12
        _title(draw, (x + 8, y + 4), str(node["title"]), width)
    return sheet.resize(size, Image.Resampling.LANCZOS)


def _title(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, width: float) -> None:
    """Write the words below each other where one line is too long, as large as the longest word allows."""
    words = text.split()
    for points in range(22, 7, -1):
        font = ImageFont.load_default(points)
        if max(draw.textlength(word, font) for word in words) <= width:
            break
    lines = [words[0]]
    for word in words[1:]:
        joined = f"{lines[-1]} {word}"
        lines = [*lines[:-1], joined] if draw.textlength(joined, font) <= width else [*lines, word]
    draw.multiline_text(place, "\n".join(lines), fill=INK, font=font, spacing=2)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _corner(node: dict[str, Any]) -> tuple[float, float]:
    return node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]


def _bezier(t: float, *points: tuple[float, float]) -> tuple[float, float]:
    """A point of a cubic curve."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    return sum(w * p[0] for w, p in zip(weights, points)), sum(w * p[1] for w, p in zip(weights, points))


def save(image: Image.Image, path: Path, quality: int = 88) -> None:
    write_atomically(path, lambda temporary: image.save(temporary, format="JPEG", quality=quality, optimize=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="workflows; none: all")
    parser.add_argument("--server", metavar="HOST:PORT", help="a running ComfyUI with this pack")
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--graphs", action="store_true", help="only the drawings of graphs, which need no ComfyUI")
    options = parser.parse_args()
    chosen = [w for w in all_workflows() if not options.names or w.name in options.names]
    unknown = set(options.names) - {w.name for w in chosen}
    if unknown:
        parser.error(
            f"no workflow {', '.join(sorted(unknown))}; there are {', '.join(w.name for w in all_workflows())}"
        )
    for workflow in chosen:
        if workflow.thumbnail == "graph":
            save(graph_picture(workflow.name), FOLDER / f"{workflow.name}.jpg")
            print(workflow.name)
    runs = [] if options.graphs else [w.name for w in chosen if w.thumbnail == "run"]
    if not runs:
        return
    with comfyui.server(options.server) as url:
        for name in runs:
            save(run_picture(name, url, options.steps), FOLDER / f"{name}.jpg")
            print(name, flush=True)


if __name__ == "__main__":
    main()
