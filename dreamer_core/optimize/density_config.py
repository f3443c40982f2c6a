"""When Gaussians are added and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ..errors import InputError
from ..settings import Knob, Settings

Strategy = Literal["default", "mcmc"]


@dataclass(frozen=True)
class DensityConfig(Settings):
    """Growing, splitting and pruning; thresholds hold for any resolution and batch."""

    group: ClassVar[str] = "density"

    enabled: Annotated[bool, Knob("Whether Gaussians are added and removed. off: their number stays as it is.")] = True
    max_gaussians: Annotated[
        int,
        Knob(
            "No growth beyond this many Gaussians. Published: no limit. Good: 100,000 to 1,000,000.", 4, 20_000_000, 1
        ),
    ] = 1_000_000
    start: Annotated[int, Knob("Refines after this step. Published: 100.", 0, 1_000_000, 1)] = 100
    stop: Annotated[
        int, Knob("Refines before this step. Published: 1,500. Good: about 60 % of all steps.", 0, 1_000_000, 1)
    ] = 1500
    every: Annotated[
        int,
        Knob(
            "Refines at steps that are multiples of this, after start and before stop. Published: 100. Good: 50 to "
            "200.",
            1,
            10_000,
            1,
        ),
    ] = 100
    grow_gradient: Annotated[
        float,
        Knob(
            "Mean gradient in the image, per view, above which a Gaussian grows (device coordinates, at "
            "reference_resolution). Published: 0.00075; 0.0005 for a figure. Good: 0.0002 to "
            "0.002.",
            1e-7, 1e12, 1e-5,
        ),
    ] = 7.5e-4  # fmt: skip
    split_scale: Annotated[
        float,
        Knob(
            "Larger Gaussians (world units) are split, smaller ones copied. Published: 0.0105. Good: 0.005 to 0.05.",
            1e-5,
            1e4,
            1e-4,
            advanced=True,
        ),
    ] = 0.0105
    prune_opacity: Annotated[
        float,
        Knob(
            "Removes Gaussians fainter than this (opacity, 0 to 1). Published: 0.005. Good: 0.002 to 0.02.",
            1e-4,
            0.99,
            0.0005,
            advanced=True,
        ),
    ] = 0.005
    prune_scale: Annotated[
        float,
        Knob(
            "Removes Gaussians larger than this (world units), after the first reset of the opacities, or after start "
            "where nothing is reset. Published: 0.35. Good: 0.2 to 1.",
            1e-3, 1e4, 0.01, advanced=True,
        ),
    ] = 0.35  # fmt: skip
    reset_every: Annotated[
        int,
        Knob(
            "Resets opacities to twice prune_opacity at steps that are multiples of this, before stop. Published: 300. "
            "0: never.",
            0, 1_000_000, 1, advanced=True,
        ),
    ] = 300  # fmt: skip
    strategy: Annotated[
        Strategy,
        Knob(
            "default: copy, split and prune by the gradient (published). mcmc: move dead Gaussians to living ones and "
            "grow by 5 % at a time up to max_gaussians (2404.09591); thresholds and resets do not count."
        ),
    ] = "default"
    noise: Annotated[
        float,
        Knob(
            "For mcmc: strength of the random moves (unitless). Good: 100,000 to 1,000,000.",
            0.0,
            1e8,
            1e4,
            advanced=True,
        ),
    ] = 5e5
    reference_resolution: Annotated[
        int,
        Knob(
            "Pixels per side that grow_gradient holds for; it follows the square of the resolution. Published: 1024.",
            16, 8192, 64, advanced=True,
        ),
    ] = 1024  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.enabled and self.start >= self.stop:
            remedy = "or nothing is ever refined; to switch it off, set density.enabled"
            raise InputError("density.start", f"below density.stop, {self.stop}", self.start, remedy)
