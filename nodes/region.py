"""Which part of a splat an edit may change, with a viewer in which it is moved by mouse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.cameras import orbit_cameras, turntable
from ..dreamer_core.editing.placement import Placement
from ..dreamer_core.editing.regions import Part, Region, Seen, part_of
from ..dreamer_core.errors import InputError
from ..dreamer_core.gaussians import Gaussians, rgb_to_sh
from .host.images import views_image
from .host.progress import say
from .host.results import PICTURE_SIZE, PICTURES, view_ui
from .host.splat import one_from_splat
from .sockets import CATEGORY, DreamerRegion, chosen, errors_named, wrong_choice
from .view import around_input

FAR = 1e9
TINT = (1.0, 0.45, 0.05)
NUMBERS: dict[str, tuple[str, ...]] = {
    "box": ("x", "y", "z", "width", "height", "depth"),
    "sphere": ("x", "y", "z", "radius"),
    "points": ("x", "y", "z", "count"),
}
"""Inputs of a shape, in the order of `part_of`."""
SHAPES = (*NUMBERS, "mask")
DEFAULTS = {"width": 0.5, "height": 0.5, "depth": 0.5, "radius": 0.3, "count": 500}


def _place(tip: str) -> list[io.Input]:
    def one(name: str, where: str) -> io.Input:
        tooltip = f"{tip}, {where}, in the splat's own units. The viewer sets it by mouse."
        return io.Float.Input(name, default=0.0, min=-FAR, max=FAR, step=0.01, optional=True, tooltip=tooltip)

    return [one("x", "to the right"), one("y", "upwards"), one("z", "towards the front")]


def _length(name: str, tip: str) -> io.Input:
    tooltip = f"{tip}, in the splat's own units. The viewer sets it by mouse."
    return io.Float.Input(name, default=DEFAULTS[name], min=1e-6, max=FAR, step=0.01, optional=True, tooltip=tooltip)


def _mask_inputs() -> list[io.Input]:
    def number(name: str, default: float, low: float, high: float, tip: str) -> io.Input:
        return io.Float.Input(name, default=default, min=low, max=high, step=1.0, optional=True, tooltip=tip)

    return [
        io.Mask.Input("mask", tooltip="Painted on a picture of Dreamer XL Render with the camera that is named here."),
        number("azimuth", 0.0, -360.0, 360.0, "Degrees of that camera: 0 is the front, 90 is +X."),
        number("elevation", 0.0, -90.0, 90.0, "Degrees of that camera: 0 is level, 90 is overhead."),
        number("distance", 3.5, 0.01, FAR, "Distance of that camera from the origin, in the splat's own units."),
        number("fov", 31.5, 1.0, 150.0, "Field of view of that camera in degrees over the height."),
        io.Boolean.Input(
            "behind", default=False, optional=True, tooltip="Whether what is hidden behind the mask counts, too."
        ),
        around_input(),
    ]


def _part(given: Mapping[str, Any]) -> Part:
    """Errors: InputError."""
    kind = given["shape"]
    if kind != "mask":
        names = NUMBERS[kind]
        return part_of(kind, [float(DEFAULTS.get(n, 0.0) if given.get(n) is None else given[n]) for n in names])
    mask = given.get("mask")
    if mask is None:
        raise InputError("mask", "a MASK", "none", "link one")
    masks = mask.reshape(-1, *mask.shape[-2:]).float().cpu()
    if len(masks) != 1:
        raise InputError("mask", "one mask", f"a batch of {len(masks)}", "join several regions by `also`")
    camera = {"azimuth": 0.0, "elevation": 0.0, "distance": 3.5, "fov": 31.5}
    azimuth, elevation, distance, fov = (float(v if given.get(n) is None else given[n]) for n, v in camera.items())
    height, width = masks.shape[1:]
    views = orbit_cameras([azimuth], elevation, distance, math.radians(fov), width, height)
    return Seen(masks, views, bool(given.get("behind")), given.get("around") == "splat")


def tinted(gaussians: Gaussians, inside: torch.Tensor) -> Gaussians:
    """Those inside in orange."""
    tint = rgb_to_sh(gaussians.sh0.new_tensor(TINT))
    mixed = torch.lerp(gaussians.sh0, tint.expand_as(gaussians.sh0), 0.6)
    return replace(gaussians, sh0=torch.where(inside[:, None, None], mixed, gaussians.sh0))


class DreamerXLRegion(io.ComfyNode):
    """DREAMER_REGION: a box, a ball, the nearest to a point, or what is seen through a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        box = [
            *_place("Middle of the box"),
            _length("width", "Whole side along X"),
            _length("height", "Whole side along Y"),
            _length("depth", "Whole side along Z"),
        ]
        ball = [*_place("Middle of the ball"), _length("radius", "Radius of the ball")]
        count = io.Int.Input(
            "count",
            default=500,
            min=1,
            max=20_000_000,
            optional=True,
            tooltip="How many Gaussians nearest to the point.",
        )
        return io.Schema(
            node_id="DreamerXLRegion",
            display_name="Dreamer XL Region",
            category=CATEGORY,
            description="Which Gaussians Dreamer XL Restyle or Edit may change; all others stay to the bit. Queue once "
            "to see the splat, then drag the handles of the box in the viewer, or click where the point is.",
            search_aliases=["select gaussians", "edit region", "splat mask", "bounding box", "inpaint splat"],
            is_output_node=True,
            inputs=[
                io.Splat.Input("splat", tooltip="The splat that is changed later."),
                io.DynamicCombo.Input(
                    "shape",
                    options=[
                        io.DynamicCombo.Option("box", box),
                        io.DynamicCombo.Option("sphere", ball),
                        io.DynamicCombo.Option("points", [*_place("The point"), count]),
                        io.DynamicCombo.Option("mask", _mask_inputs()),
                    ],
                    tooltip="box and sphere: centres inside. points: the nearest to a point. mask: what a camera sees "
                    "through a mask.",
                ),
                io.Boolean.Input(
                    "outside", default=False, optional=True, tooltip="Everything but the region may change instead."
                ),
                DreamerRegion.Input("also", optional=True, tooltip="Another region that counts, too."),
            ],
            outputs=[DreamerRegion.Output(display_name="region", tooltip="For Dreamer XL Restyle or Edit.")],
            hidden=[io.Hidden.unique_id],
            accept_all_inputs=True,  # an unknown choice, so that it is refused by its name
        )

    @classmethod
    def validate_inputs(cls, shape: dict | str | None = None) -> bool | str:
        return wrong_choice(shape, "shape", SHAPES) or True

    @classmethod
    def execute(
        cls,
        splat: Types.SPLAT,
        shape: dict | None = None,
        outside: bool = False,
        also: Region | None = None,
        **_: Any,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Region"), torch.inference_mode(False):
            given = chosen(shape, "shape", SHAPES)
            region = Region((_part(given), *((also,) if also is not None else ())), outside)
            gaussians = one_from_splat(splat)
            inside = region.holds(gaussians)
            count = int(inside.sum())
            empty = "" if count else ": move or resize the region before it is used"
            say(f"{count:,} of {len(gaussians):,} Gaussians{empty}", cls.hidden.unique_id)
            marked = tinted(gaussians, inside)
            device = mm.get_torch_device()
            placed = Placement.of(marked).place(marked).to(device)
            orbit = turntable(PICTURES, PICTURE_SIZE, elevation=15.0)
            pictures = views_image(placed, orbit, torch.ones(3, device=device))
            shown = gaussians if given["shape"] in ("box", "sphere") else marked
            return io.NodeOutput(region, ui=view_ui([(shown, pictures)]))
