"""Pictures of a splat."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.cameras import Cameras, turntable
from ..dreamer_core.editing.placement import Placement
from ..dreamer_core.media import render_outputs
from .host.images import cancellable, depth_image, parse_color
from .host.splat import from_splat, refuse_empty
from .sockets import CATEGORY, chosen, errors_named, validated, wrong_choice

PATHS = ("turntable", "view")


def _cameras(
    path: dict[str, Any], size: int, elevation: float, radius: float, fov: float, half_width: float
) -> Cameras:
    frames = 1 if path["path"] == "view" else path.get("frames") or 24
    return turntable(
        frames,
        size,
        elevation=elevation,
        radius=radius,
        fov=math.radians(fov),
        start=path.get("azimuth") or 0.0,
        half_width=half_width or None,
    )


def around_input() -> io.Input:
    """What a camera goes round."""
    return io.Combo.Input(
        "around",
        options=["origin", "splat"],
        default="origin",
        optional=True,
        advanced=True,
        tooltip="What the camera goes round. splat: its middle, and its radius counts as 0.8, as Dreamer XL Edit sees "
        "it; for scans that lie elsewhere.",
    )


class DreamerXLRender(io.ComfyNode):
    """IMAGE, MASK and depth of a SPLAT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def azimuth(tooltip: str) -> io.Input:
            return io.Float.Input(
                "azimuth", default=0.0, min=-360.0, max=360.0, step=1.0, optional=True, tooltip=tooltip
            )

        frames = io.Int.Input(
            "frames",
            default=24,
            min=1,
            max=1000,
            optional=True,
            tooltip="Number of evenly spaced views. 24 for a look, 120 for a film.",
        )
        return io.Schema(
            node_id="DreamerXLRender",
            display_name="Dreamer XL Render",
            category=CATEGORY,
            description="Renders a splat exactly as the optimisation sees it, all around or from one side.",
            search_aliases=["turntable", "render splat", "orbit render", "gaussian render", "depth of splat"],
            inputs=[
                io.Splat.Input("splat", tooltip="Any splat; every object of a batch is rendered."),
                io.DynamicCombo.Input(
                    "path",
                    options=[
                        io.DynamicCombo.Option("turntable", [frames, azimuth("Degrees of the first view; 0: front.")]),
                        io.DynamicCombo.Option("view", [azimuth("Degrees: 0 is the front, 90 is +X, 180 the back.")]),
                    ],
                    tooltip="turntable: once around the object. view: one picture.",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=16,
                    max=4096,
                    step=16,
                    optional=True,
                    tooltip="Pixels per side. 512 for a look, 1024 for a film.",
                ),
                io.Float.Input(
                    "elevation",
                    default=0.0,
                    min=-90.0,
                    max=90.0,
                    step=1.0,
                    optional=True,
                    tooltip="Degrees above the horizon. 0 to 30 is natural.",
                ),
                io.Float.Input(
                    "radius",
                    default=3.5,
                    min=0.01,
                    max=1e9,
                    step=0.1,
                    optional=True,
                    tooltip="Distance of the camera in world units. 3.5 shows an object of radius 1 whole.",
                ),
                io.Float.Input(
                    "fov",
                    default=31.5,
                    min=1.0,
                    max=150.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Field of view in degrees over the height. 20 to 45.",
                ),
                io.String.Input(
                    "background",
                    default="#ffffff",
                    optional=True,
                    advanced=True,
                    tooltip="Colour behind the object as #rrggbb. White: #ffffff, black: #000000.",
                ),
                io.Float.Input(
                    "half_width",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Above 0: parallel rays (an orthographic camera) that show so many world units to each "
                    "side, in place of fov. 1.1 shows an object of radius 1 whole. 0: perspective.",
                ),
                around_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Views on the background."),
                io.Mask.Output(display_name="mask", tooltip="Coverage: 1 where the object is solid."),
                io.Image.Output(display_name="depth", tooltip="Near is white, far is grey, nothing is black."),
            ],
            accept_all_inputs=True,  # an unknown choice, so that it is refused by its name
        )

    @classmethod
    def validate_inputs(
        cls, resolution: int | None = 512, background: str | None = "#ffffff", path: dict | str | None = None
    ) -> bool | str:
        if wrong := wrong_choice(path, "path", PATHS):
            return wrong
        values = {"resolution": resolution, "background": background}
        return validated(cls, values, lambda: parse_color(background or ""))

    @classmethod
    def execute(
        cls,
        splat: Types.SPLAT,
        path: dict | None = None,
        resolution: int = 512,
        elevation: float = 0.0,
        radius: float = 3.5,
        fov: float = 31.5,
        background: str = "#ffffff",
        half_width: float = 0.0,
        around: str = "origin",
        **_: Any,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Render"):
            cameras = _cameras(chosen(path, "path", PATHS), resolution, elevation, radius, fov, half_width)
            color, device = parse_color(background), mm.get_torch_device()
            parts = refuse_empty(from_splat(splat))
            if around == "splat":
                parts = [Placement.of(part).place(part) for part in parts]
            shape = (len(parts) * len(cameras), cameras.height, cameras.width)
            images, alphas, depths = (torch.empty(*shape, channels) for channels in (3, 1, 1))
            outputs = (out for g in parts for out in render_outputs(g.to(device), cameras, color, depth=True))
            for i, out in enumerate(cancellable(outputs)):
                images[i], alphas[i] = out.colors[0].clamp(0, 1), out.alphas[0].clamp(0, 1)
                depths[i] = out.expected_depths[0]
            return io.NodeOutput(images, alphas[..., 0], depth_image(depths, alphas))
