"""Draws web/docs/assets/*.jpg: renders of a splat, and diagrams of what the core itself computes.

    python -m tools.help_pictures outputs/a-red-mushroom/splat.ply   # any splat, e.g. of python3 dev.py demo
    python -m tools.help_pictures                                    # the diagrams, which need no splat

Needs the environment of `python3 dev.py demo` (.venv).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dreamer_core.cameras import Cameras, orbit_cameras, turntable
from dreamer_core.formats import load_gaussians
from dreamer_core.gaussians import Gaussians
from dreamer_core.guidance.clipping import clip_pixel_gradient
from dreamer_core.initializers import initial_shape
from dreamer_core.initializers.mesh import Mesh
from dreamer_core.media import render_views, to_uint8
from dreamer_core.meshes import MeshConfig, TexturedMesh, build_mesh, paint_mesh
from dreamer_core.meshes.pictures import pictures
from dreamer_core.optimize.cleanup import CleanupConfig, clean
from dreamer_core.optimize.presets import OFFICIAL
from dreamer_core.orbit import OrbitConfig, sample_orbit
from dreamer_core.prompts import PromptConfig, encode_prompts, view_weights
from dreamer_core.teacher_preview import SamplingConfig, draw

from . import comfyui
from .thumbnails import graph_picture, save

FOLDER = comfyui.ROOT / "web" / "docs" / "assets"
SIDE = 200
"""Pixels per side of one rendered view."""
INK, GRID = (40, 44, 52), (205, 208, 214)
COLORS = ((46, 111, 178), (209, 102, 41), (70, 140, 82))
Point = tuple[float, float]


def row(objects: Sequence[Gaussians], azimuths: Sequence[float], elevation: float = 15.0) -> Image.Image:
    """One view of each object beside the other, on white."""
    sheet = Image.new("RGB", (SIDE * len(objects), SIDE), "white")
    for i, (gaussians, azimuth) in enumerate(zip(objects, azimuths)):
        (image,) = render_views(gaussians, orbit_cameras([azimuth], elevation, 3.2, 0.55, 2 * SIDE), (1.0, 1.0, 1.0))
        view = Image.fromarray(to_uint8(image)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(view, (SIDE * i, 0))
    return sheet


def mesh(splat: Gaussians) -> Image.Image:
    """The splat, its mesh, and the mesh's triangles."""
    made = build_mesh(splat, MeshConfig(size=0.0, origin="splat", triangles=3000))
    return beside(splat, textured(made), wires(made))


def painted(splat: Gaussians) -> Image.Image:
    """The splat, a mesh of few triangles, and that mesh with the splat's colours."""
    few = build_mesh(splat, MeshConfig(size=0.0, origin="splat", triangles=3000, texture=64, cells=64, smooth=1.0))
    bare = Mesh(few.vertices.astype(np.float64), few.faces, uv=few.uv.astype(np.float64))
    return beside(splat, wires(few), textured(paint_mesh(splat, bare)[0]))


def beside(splat: Gaussians, *others: Image.Image) -> Image.Image:
    """The splat from the meshes' camera, then their pictures."""
    sheet = row([splat] * (1 + len(others)), [30.0] * (1 + len(others)), 20.0)
    for i, image in enumerate(others, 1):
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (SIDE * i, 0))
    return sheet


def mesh_camera() -> Cameras:
    return orbit_cameras([30.0], 20.0, 3.2, 0.55, 2 * SIDE)


def textured(made: TexturedMesh) -> Image.Image:
    (image,), _ = pictures(made, mesh_camera())
    return Image.fromarray(to_uint8(image))


def wires(made: TexturedMesh) -> Image.Image:
    """The edges of the triangles that face the camera."""
    camera = mesh_camera()
    corners = made.vertices[made.faces] @ camera.viewmats[0, :3, :3].numpy().T + camera.viewmats[0, :3, 3].numpy()
    flat = corners[..., :2] / corners[..., 2:] * float(camera.Ks[0, 0, 0]) + SIDE
    sheet = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    pen = ImageDraw.Draw(sheet)
    for a, b, c in flat[np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]) < 0]:
        pen.polygon([*a, *b, *c], outline=INK)
    return sheet


class Chart:
    """Axes from `low` to `high`, drawn twice as large as saved."""

    def __init__(self, low: Point, high: Point, labels: Point | tuple[str, str], size: tuple[int, int] = (640, 240)):
        self.low, self.high, self.size = low, high, size
        self.image = Image.new("RGB", (2 * size[0], 2 * size[1]), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.box = (110, 40, 2 * size[0] - 40, 2 * size[1] - 90)
        self.text((self.box[0] + self.box[2]) / 2, 2 * size[1] - 22, str(labels[0]))
        self.draw.text((8, 18), str(labels[1]), fill=INK, font=ImageFont.load_default(26), anchor="lm")

    def place(self, point: Point) -> Point:
        left, top, right, bottom = self.box
        x = left + (point[0] - self.low[0]) / (self.high[0] - self.low[0]) * (right - left)
        return x, bottom - (point[1] - self.low[1]) / (self.high[1] - self.low[1]) * (bottom - top)

    def text(self, x: float, y: float, text: str, color: tuple[int, int, int] = INK) -> None:
        self.draw.text((x, y), text, fill=color, font=ImageFont.load_default(26), anchor="mm")

    def ticks(self, xs: Sequence[float], ys: Sequence[float], shown: Callable[[float], str] = "{:g}".format) -> None:
        for x in xs:
            self.draw.line((self.place((x, self.low[1])), self.place((x, self.high[1]))), fill=GRID, width=2)
            self.text(self.place((x, 0))[0], self.box[3] + 26, shown(x))
        for y in ys:
            self.draw.line((self.place((self.low[0], y)), self.place((self.high[0], y))), fill=GRID, width=2)
            self.text(60, self.place((0, y))[1], shown(y))

    def curve(self, points: Sequence[Point], color: tuple[int, int, int]) -> None:
        self.draw.line([self.place(p) for p in points], fill=color, width=5, joint="curve")

    def dots(self, points: Sequence[Point], color: tuple[int, int, int], radius: float = 4) -> None:
        for x, y in map(self.place, points):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def done(self) -> Image.Image:
        return self.image.resize(self.size, Image.Resampling.LANCZOS)


# Diagrams
def prompt_weights() -> Image.Image:
    """What each direction's prompt counts at each azimuth."""
    chart = Chart((-180, 0), (180, 1), ("azimuth in degrees", "share of the prompt"))
    chart.ticks((-180, -90, 0, 90, 180), (0, 0.5, 1))
    azimuth = torch.linspace(-180, 180, 361)
    weights = view_weights(azimuth)
    for i, name in enumerate(("front", "side", "back")):
        chart.curve(list(zip(azimuth.tolist(), weights[:, i].tolist())), COLORS[i])
        chart.text(420 + 220 * i, 18, name, COLORS[i])
    return chart.done()


def cameras() -> Image.Image:
    """Two hundred cameras of the published ranges from above and from the side; the circle is an object of radius 1."""
    drawn = sample_orbit(OrbitConfig(), 200, 64, 0, torch.Generator().manual_seed(0))
    rotation, translation = drawn.viewmats[:, :3, :3], drawn.viewmats[:, :3, 3]
    eyes = -(rotation.transpose(1, 2) @ translation[..., None])[..., 0]
    sheet = Image.new("RGB", (640, 320), "white")
    circle = [(math.cos(a / 30 * math.pi), math.sin(a / 30 * math.pi)) for a in range(61)]
    for i, (labels, axes) in enumerate(
        ((("X; the front looks down", "from above"), (0, 2)), (("Z; the front looks right", "from the side"), (2, 1)))
    ):
        chart = Chart((-6.5, -6.5), (6.5, 6.5), labels, (320, 320))
        chart.ticks((-6, -3, 0, 3, 6), (-6, -3, 0, 3, 6))
        sign = -1.0 if axes == (0, 2) else 1.0  # +Z, the front, points down on paper
        chart.curve(circle, COLORS[1])
        chart.dots([(float(e[axes[0]]), sign * float(e[axes[1]])) for e in eyes], COLORS[0], 6)
        sheet.paste(chart.done(), (320 * i, 0))
    return sheet


def timesteps() -> Image.Image:
    """The range that timesteps are drawn from over the published run, and draws from it."""
    guidance, steps = OFFICIAL.guidance, OFFICIAL.steps
    chart = Chart((0, 0), (steps, 1000), ("step", "timestep"))
    chart.ticks((0, 500, 1000, 1500, 2000, 2500), (0, 250, 500, 750, 1000))
    low, high = guidance.t_min, guidance.t_max
    generator = torch.Generator().manual_seed(0)
    top, points = [], []
    for step in range(0, steps, 4):
        fade = 1 - min(step / max(guidance.warmup_steps, 1), 1)
        upper = min(high + int(fade * guidance.t_widening), 999)
        top.append((float(step), float(upper)))
        points.append((float(step), float(torch.randint(low, upper + 1, (1,), generator=generator))))
    chart.dots(points, (150, 182, 214), 4)
    chart.curve(top, COLORS[0])
    chart.curve([(0, low), (steps, low)], COLORS[0])
    return chart.done()


def clipping() -> Image.Image:
    """Gradients of two channels of random pixels before and after clipping at 0.05."""
    chart = Chart((-0.16, -0.16), (0.16, 0.16), ("gradient of red", "gradient of green"), (360, 360))
    chart.ticks((-0.1, 0, 0.1), (-0.1, 0, 0.1))
    before = 0.06 * torch.randn(1, 8, 8, 3, generator=torch.Generator().manual_seed(3))
    before[..., 2] = 0.0
    after = clip_pixel_gradient(before, OFFICIAL.clip.threshold)[0]
    c = OFFICIAL.clip.threshold
    chart.curve([(-c, -c), (c, -c), (c, c), (-c, c), (-c, -c)], COLORS[2])
    for a, b in zip(before.reshape(-1, 3).tolist(), after.reshape(-1, 3).tolist()):
        chart.draw.line((chart.place((a[0], a[1])), chart.place((b[0], b[1]))), fill=(224, 190, 170), width=3)
    chart.dots([(p[0], p[1]) for p in before.reshape(-1, 3).tolist()], COLORS[1], 6)
    chart.dots([(p[0], p[1]) for p in after.reshape(-1, 3).tolist()], COLORS[0], 6)
    return chart.done()


def density() -> Image.Image:
    """When the published density control acts."""
    config = OFFICIAL.density
    chart = Chart((0, 0), (OFFICIAL.steps, 3), ("step", ""), (640, 170))
    chart.ticks((0, 500, 1000, 1500, 2000, 2500), ())
    acts = [float(s) for s in range(config.start, config.stop + 1, config.every)]
    resets = (
        [float(s) for s in range(config.reset_every, config.stop, config.reset_every)] if config.reset_every else []
    )
    chart.dots([(s, 2.0) for s in acts], COLORS[0], 9)
    chart.dots([(s, 1.0) for s in resets], COLORS[1], 9)
    chart.text(700, 30, "copy, split and prune", COLORS[0])
    chart.text(1050, 30, "opacities reset", COLORS[1])
    return chart.done()


def shapes() -> Image.Image:
    """The plain starts."""
    generator = torch.Generator().manual_seed(0)
    return row([initial_shape(s, 4000, generator) for s in ("sphere", "box", "ball")], [30.0] * 3)


DIAGRAMS: dict[str, Callable[[], Image.Image]] = {
    "DreamerXLLoader": lambda: graph_picture("lora_swap"),
    "DreamerXLPrompt": prompt_weights,
    "DreamerXLInitialize": shapes,
    "DreamerXLCameras": cameras,
    "DreamerXLTSMGuidance": timesteps,
    "DreamerXLGradientClip": clipping,
    "DreamerXLDensityControl": density,
}


# Renders
def needles(splat: Gaussians) -> Image.Image:
    """The object with its Gaussians made round, and stretched."""
    mean = splat.log_scales.mean(-1, keepdim=True)
    round_ = replace(splat, log_scales=mean.expand(-1, 3).contiguous())
    stretch = torch.tensor([1.6, -0.8, -0.8])
    return row([round_, replace(splat, log_scales=mean + stretch)], [30.0, 30.0])


def floaters(splat: Gaussians) -> Image.Image:
    """The object with small pieces beside it, and cleaned."""
    generator = torch.Generator().manual_seed(1)
    extra = initial_shape("ball", 60, generator, size=0.05, opacity=0.5)
    shifts = torch.nn.functional.normalize(torch.randn(12, 3, generator=generator), dim=-1)
    pieces = [replace(extra, means=0.12 * extra.means + 1.05 * shift) for shift in shifts]
    small = [replace(p, log_scales=torch.full_like(p.log_scales, math.log(0.02))) for p in pieces]
    bare = [splat, *(replace(p, shN=splat.shN[:1].expand(len(p), -1, -1) * 0) for p in small)]
    fields = ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN")
    dirty = Gaussians(*(torch.cat([getattr(g, f) for g in bare]) for f in fields))
    return row([dirty, clean(dirty, CleanupConfig(floater_share=1.0))[0]], [30.0, 30.0])


def teacher_views() -> Image.Image:
    """What the built-in checkpoint draws of a chair, as the node shows it."""
    from dreamer_core.cli.generate import starter_checkpoint
    from dreamer_core.teachers.sdxl.loading import load_sdxl

    teacher = load_sdxl(starter_checkpoint(), keep_decoder=True)
    pictures = draw(
        teacher,
        encode_prompts(teacher, PromptConfig("a green chair")),
        resolution=128,
        sampling=SamplingConfig(),
    )
    views = [Image.fromarray(to_uint8(image)) for image in teacher.decode(pictures)]
    sheet = Image.new("RGB", (SIDE * len(views), SIDE))
    for i, view in enumerate(views):
        sheet.paste(view.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (SIDE * i, 0))
    return sheet


DIAGRAMS["DreamerXLTeacherPreview"] = teacher_views
RENDERS: dict[str, Callable[[Gaussians], Image.Image]] = {
    "DreamerXLRegularizers": needles,
    "DreamerXLOptimize": lambda splat: row([splat] * 4, [0.0, 90.0, 180.0, 270.0]),
    "DreamerXLCleanup": floaters,
    "DreamerXLRender": lambda splat: row([splat] * 4, [float(a) for a in turntable(4, 64).azimuth], 0.0),
    "DreamerXLPreview": lambda splat: row([splat], [30.0]),
    "DreamerXLMesh": mesh,
    "DreamerXLBakeTexture": painted,
    "DreamerXLExport": lambda splat: row([splat] * 2, [0.0, 180.0]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("splat", nargs="?", type=Path, help="a splat file to render")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, diagram in DIAGRAMS.items():
        save(diagram(), FOLDER / f"{name}.jpg")
        print(name)
    if options.splat is not None:
        splat = load_gaussians(options.splat)
        for name, show in RENDERS.items():
            save(show(splat), FOLDER / f"{name}.jpg")
            print(name, flush=True)


if __name__ == "__main__":
    main()
