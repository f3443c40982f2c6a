"""What people can choose about a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ..settings import Knob, Settings


@dataclass(frozen=True)
class MeshConfig(Settings):
    """How a splat becomes a mesh."""

    group: ClassVar[str] = "mesh"

    triangles: Annotated[
        int,
        Knob(
            "At most so many triangles. 5,000 for a phone, 20,000 for a game, 100,000 for a close view; 0: as many as "
            "the surface has.",
            0, 5_000_000, 1000,
        ),
    ] = 20_000  # fmt: skip
    texture: Annotated[
        int, Knob("Pixels per side of the texture. 1024 is good; 2048 for large splats with fine detail.", 64, 8192, 64)
    ] = 1024
    size: Annotated[
        float,
        Knob(
            "Longest side of the object in metres, as game engines and Blender read it. 0: the splat's own units.",
            0.0, 1000.0, 0.01, unit="metres",
        ),
    ] = 1.0  # fmt: skip
    origin: Annotated[
        Literal["ground", "centre", "splat"],
        Knob(
            "Where the object's zero point is. ground: below its middle, so that it stands; centre: in its middle; "
            "splat: where the splat has it."
        ),
    ] = "ground"
    cells: Annotated[
        int,
        Knob(
            "How finely the surface is cut out: cells along the longest side. 128 suits most; 256 for thin parts, "
            "which takes eight times the memory.",
            32, 512, 16, label="surface detail", advanced=True,
        ),
    ] = 128  # fmt: skip
    smooth: Annotated[
        float,
        Knob("How far bumps of the surface are smoothed, in cells. 0: not at all; 2: thin parts suffer.",
             0.0, 5.0, 0.1, advanced=True),
    ] = 0.7  # fmt: skip
    smallest_part: Annotated[
        float,
        Knob("Removes loose parts below this percentage of the largest part's volume.", 0.0, 100.0, 0.1, advanced=True),
    ] = 0.5
    views: Annotated[
        int,
        Knob("Pictures from all around that surface and texture are taken from. Good: 32 to 64; more for deep hollows.",
             8, 512, 4, advanced=True),
    ] = 40  # fmt: skip
    resolution: Annotated[
        int,
        Knob("Pixels per side of these pictures. 512 is good with a texture of 1024; 1024 with 2048.",
             64, 4096, 64, label="picture resolution", advanced=True),
    ] = 512  # fmt: skip
