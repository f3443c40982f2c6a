"""Pictures from known sides as a start: the inputs, and the fit."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management as mm
import comfy.utils
from comfy_api.latest import io

from ..dreamer_core.errors import InputError
from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.initializers.views import ViewPictures, gaussians_from_views
from ..dreamer_core.teachers.multiview.cameras import HALF_WIDTH
from .multiview import DEFAULT, parse_degrees

STEPS = 300


def view_inputs(count: io.Input) -> list[io.Input]:
    """What is asked for pictures from known sides."""
    return [
        io.Image.Input("images", tooltip="One object on an even background, one picture from each side."),
        io.String.Input(
            "azimuths",
            default=DEFAULT,
            optional=True,
            tooltip="Degrees of the pictures in order; 0 is the front, 90 looks from +X. "
            f"{DEFAULT}: Dreamer XL Multi-View's.",
        ),
        count,
        io.Int.Input(
            "fit_steps",
            default=STEPS,
            min=0,
            max=10_000,
            optional=True,
            tooltip="Steps of the fit. Good: 200 to 600. 0 keeps the hull that the silhouettes carve.",
        ),
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="Where the object is in each picture. Not wired: where it differs from its border.",
        ),
        io.String.Input(
            "elevations",
            default="0",
            optional=True,
            advanced=True,
            tooltip="Degrees above the horizon, one for all pictures or one for each. Dreamer XL Multi-View's: 0.",
        ),
        io.Float.Input(
            "half_width",
            default=HALF_WIDTH,
            min=0.1,
            max=10.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="World units that a picture shows to each side of its middle. 1.1 suits pictures that an object "
            "fills; the finished object should fit a ball of radius 1.",
        ),
        io.Float.Input(
            "fov",
            default=0.0,
            min=0.0,
            max=120.0,
            step=1.0,
            optional=True,
            advanced=True,
            tooltip="Field of view of the pictures in degrees. 0: parallel rays, as Dreamer XL Multi-View draws.",
        ),
    ]


def fit_pictures(inner: dict[str, Any], count: int, seed: int, up: str, yaw: float) -> Gaussians:
    """Gaussians that look like the pictures. Errors: InputError."""
    if up != "auto":
        raise InputError("up", "auto for pictures, which stand upright", up, "set up to auto")
    images = inner.get("images")
    if images is None:
        raise InputError("images", "pictures of one object", "nothing", "wire an IMAGE")
    elevations, half_width = inner.get("elevations"), inner.get("half_width")
    views = ViewPictures(
        images[..., :3].float(),
        [a - yaw for a in parse_degrees(inner.get("azimuths") or DEFAULT, "azimuths")],
        parse_degrees(elevations or "0", "elevations"),
        HALF_WIDTH if half_width is None else half_width,
        math.radians(inner.get("fov") or 0.0),
        inner.get("masks"),
    )
    steps = STEPS if inner.get("fit_steps") is None else inner["fit_steps"]
    bar = comfy.utils.ProgressBar(max(steps, 1))

    def on_step(done: int, of: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, of)

    return gaussians_from_views(views, count, steps=steps, seed=seed, device=mm.get_torch_device(), on_step=on_step).to(
        "cpu"
    )
