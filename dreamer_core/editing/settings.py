"""The settings of a run that changes a splat which exists already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ..settings import Knob, Settings

Change = Literal["all", "colours", "shape"]
Harmonics = Literal["keep", "flatten"]
Focus = Literal["whole", "region"]

_SIZE = "1: as strong as the largest clipped gradient of the teacher"


@dataclass(frozen=True)
class EditSettings(Settings):
    """How far a splat may go from what it is: noise levels, anchors, the order in which things change."""

    group: ClassVar[str] = "edit"

    strength: Annotated[
        float,
        Knob(
            "How much may change, 0 to 1, as denoise in image to image: the highest noise level is this share of the "
            "schedule. 0 changes nothing. Good: 0.3 to refine, 0.5 to 0.7 for another style, 0.9 for another pattern.",
            0.0, 1.0, 0.05, flag=True,
        ),
    ] = 0.6  # fmt: skip
    change: Annotated[
        Change,
        Knob("What may change: all, colours alone, or the shape alone (positions, sizes, opacities).", flag=True),
    ] = "all"
    silhouette: Annotated[
        float,
        Knob(f"How firmly the outline is kept. {_SIZE} where coverage is off by 0.1. 0: not at all.", 0.0, 100.0, 0.01),
    ] = 4.0
    depth: Annotated[
        float,
        Knob(
            f"How firmly the surface keeps its place. {_SIZE} where depth is off by 0.05 (of an object of radius 0.8). "
            "0: not at all.",
            0.0, 100.0, 0.01,
        ),
    ] = 1.0  # fmt: skip
    colours: Annotated[
        float,
        Knob(
            f"How firmly the colours of large areas are kept. {_SIZE} where a patch is off by 0.1. 0: not at all, for "
            "other colours. Good: 0.5 to 2 to keep a good splat, 0.02 to refine a spoiled one.",
            0.0, 100.0, 0.01,
        ),
    ] = 0.0  # fmt: skip
    patches: Annotated[
        int,
        Knob(
            "Patches per side of the picture whose mean colours are kept. Fewer: larger areas. Good: 4 to 16; 64 to "
            "refine.",
            1, 256, 1, advanced=True,
        ),
    ] = 8  # fmt: skip
    sizes_from: Annotated[
        float,
        Knob(
            "Share of the schedule from which sizes, rotations and opacities change; before it, colours alone. Good: "
            "0.2 to 0.5.",
            0.0, 1.0, 0.05, advanced=True,
        ),
    ] = 0.3  # fmt: skip
    positions_from: Annotated[
        float,
        Knob("Share of the schedule from which positions change. Good: 0.5 to 0.8.", 0.0, 1.0, 0.05, advanced=True),
    ] = 0.6
    position_rate: Annotated[
        float,
        Knob(
            "Factor on the learning rates of positions, sizes, rotations and opacities: small steps. Good: 0.1 to 0.5.",
            0.0, 10.0, 0.05, advanced=True,
        ),
    ] = 0.25  # fmt: skip
    harmonics: Annotated[
        Harmonics,
        Knob(
            "Colours that depend on the view (spherical harmonics above degree 0). keep: they stay and are optimised. "
            "flatten: what may change loses them.",
            flag=True,
        ),
    ] = "keep"
    focus: Annotated[
        Focus,
        Knob(
            "What the cameras go round: the whole splat, or the region alone, for a small part of a large scene.",
            flag=True,
        ),
    ] = "whole"

    @property
    def anchored(self) -> bool:
        """Whether anything is kept by an anchor."""
        return self.silhouette > 0 or self.depth > 0 or self.colours > 0

    @property
    def t_max(self) -> int:
        """The highest timestep, of 1000: image to image with this denoise begins there. At least 1."""
        return max(1, round(self.strength * 999))
