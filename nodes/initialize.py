"""Where the Gaussians start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.errors import InputError
from ..dreamer_core.formats import read_ply
from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.initializers import SHAPES, initial_shape
from ..dreamer_core.optimize.randomness import step_generator
from .host.splat import one_from_splat, to_splat
from .sockets import CATEGORY, chosen, errors_named

SOURCES = (*SHAPES, "file", "splat")


def input_files() -> list[str]:
    """The PLY files under ComfyUI's input folder, relative to it."""
    root = Path(folder_paths.get_input_directory())
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.ply") if p.is_file())


def _fitted(gaussians: Gaussians, radius: float, limit: int, seed: int) -> Gaussians:
    """At most `limit` Gaussians (0: all), moved and scaled so that 98 % of them fit a ball of `radius` (0: as is)."""
    if 0 < limit < len(gaussians):
        keep = torch.randperm(len(gaussians), generator=step_generator(seed, 0, "subset"))[:limit]
        gaussians = gaussians[keep.sort().values]
    if radius <= 0:
        return gaussians
    centred = gaussians.means - (gaussians.means.amin(0) + gaussians.means.amax(0)) / 2
    distances = centred.norm(dim=-1).sort().values
    extent = float(distances[int(0.98 * (len(distances) - 1))].clamp_min(1e-6))
    factor = radius / extent
    return Gaussians(
        centred * factor,
        gaussians.quats,
        gaussians.log_scales + torch.tensor(factor).log(),
        gaussians.logit_opacities,
        gaussians.sh0,
        gaussians.shN,
    )


class DreamerXLInitialize(io.ComfyNode):
    """SPLAT to start from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def shape(size_tip: str) -> list[io.Input]:
            return [
                io.Int.Input(
                    "count",
                    default=40_000,
                    min=4,
                    max=2_000_000,
                    optional=True,
                    tooltip="Number of Gaussians. 4,000 for the starter, 20,000 to 100,000 for SDXL.",
                ),
                io.Float.Input(
                    "size",
                    default=0.6,
                    min=0.01,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    tooltip=f"{size_tip}, in world units; the finished object should fit a ball of radius 1.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.1,
                    min=0.001,
                    max=0.999,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Opacity of each Gaussian, 0 to 1. Published: 0.1.",
                ),
            ]

        def existing(source: io.Input) -> list[io.Input]:
            return [
                source,
                io.Float.Input(
                    "radius",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    tooltip="Centre and scale it to this radius in world units. 0 keeps it. Good value: 0.8.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=5_000_000,
                    optional=True,
                    advanced=True,
                    tooltip="Keep at most this many Gaussians, drawn at random. 0 keeps all.",
                ),
            ]

        file = io.Combo.Input("file", options=input_files(), tooltip="A 3DGS .ply in ComfyUI's input folder.")
        splat = io.Splat.Input("splat", tooltip="From TripoSplat, Get Splat, or any other node.")
        options = [
            io.DynamicCombo.Option("sphere", shape("Radius of the sphere")),
            io.DynamicCombo.Option("box", shape("Half side of the cube")),
            io.DynamicCombo.Option("ball", shape("Two standard deviations of the cloud")),
            io.DynamicCombo.Option("file", existing(file)),
            io.DynamicCombo.Option("splat", existing(splat)),
        ]
        return io.Schema(
            node_id="DreamerXLInitialize",
            display_name="Dreamer XL Initialize",
            category=CATEGORY,
            description="The Gaussians that the optimisation starts from: a plain shape, a file, or a splat.",
            search_aliases=["initial splat", "point cloud", "sphere of gaussians", "load ply", "start from splat"],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=options,
                    tooltip="A plain shape of grey Gaussians, a .ply from the input folder, or another node's splat.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    optional=True,
                    tooltip="Seed of the random positions. Any whole number.",
                ),
            ],
            outputs=[io.Splat.Output(display_name="splat", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(cls, seed: int | None = 0, source: dict | None = None) -> bool | str:
        if source is None:
            return f"source: expected one of {', '.join(SOURCES)}, got an unknown choice"
        return True if seed is None or seed >= 0 else f"seed: expected 0 or more, got {seed}"

    @classmethod
    def fingerprint_inputs(cls, source: dict | None = None, seed: int = 0) -> str:
        """Changes when the chosen file does."""
        name = (source or {}).get("file")
        path = Path(folder_paths.get_input_directory()) / name if name else None
        return f"{path.stat().st_mtime_ns}" if path is not None and path.is_file() else ""

    @classmethod
    def execute(cls, source: dict | None = None, seed: int = 0) -> io.NodeOutput:
        with errors_named("Dreamer XL Initialize"):
            inner = chosen(source, "source", SOURCES)
            kind = inner["source"]
            if kind in SHAPES:
                return io.NodeOutput(cls._shape(kind, inner, seed))
            gaussians = cls._file(inner) if kind == "file" else one_from_splat(inner["splat"])
            fitted = _fitted(gaussians, inner.get("radius") or 0.0, inner.get("limit") or 0, seed)
            return io.NodeOutput(to_splat(fitted))

    @classmethod
    def _shape(cls, kind: str, inner: dict[str, Any], seed: int) -> Types.SPLAT:
        generator = step_generator(seed, 0, "init")
        count = inner.get("count") or 40_000
        size, opacity = inner.get("size") or 0.6, inner.get("opacity") or 0.1
        return to_splat(initial_shape(kind, count, generator, size=size, opacity=opacity))

    @classmethod
    def _file(cls, inner: dict[str, Any]) -> Gaussians:
        name = inner.get("file") or ""
        root = Path(folder_paths.get_input_directory()).resolve()
        path = (root / name).resolve()
        if not name or not path.is_relative_to(root):
            raise InputError("file", "a .ply in ComfyUI's input folder", repr(name))
        return read_ply(path, "file")
