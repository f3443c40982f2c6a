"""What a run starts from: the Gaussians that the options name, or those that the teacher draws."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..editing.work import Work
from ..errors import InputError
from ..gaussians import Gaussians
from ..initializers.drawn_views import DrawnViewsConfig, draw_views
from ..initializers.views import ViewPictures, gaussians_from_views
from ..media import contact_sheet, write_png
from ..optimize import OptimizationState, OptimizeConfig, Preset
from ..prompts import PromptConfig, ViewPrompts
from .initial import VIEWS, drawn_views, start

if TYPE_CHECKING:
    from ..teachers.sdxl.loading import DiffusersSDXL


@dataclass(frozen=True)
class DrawnStart:
    """Gaussians that are fitted to views which the teacher's multi-view adapter draws."""

    count: int
    config: DrawnViewsConfig
    seed: int

    def make(
        self, teacher: DiffusersSDXL, prompts: ViewPrompts, config: OptimizeConfig, renderer: str, show: Path
    ) -> Gaussians:
        """Draw, write the pictures to `show`, and fit, with a progress bar.

        Errors: InputError where the pictures show no object, or not one and the same.
        """
        from tqdm import tqdm

        assert teacher.azimuths is not None  # `start` has refused a teacher without an adapter
        print(
            "Drawing the views, then fitting to them (the first time ever the renderer is compiled) ...",
            file=sys.stderr,
        )
        with tqdm(
            total=self.config.sampling_steps + self.config.fit_steps, desc="views", unit="step", leave=False
        ) as bar:

            def on_step(done: int, of: int) -> None:
                bar.update()

            latents = draw_views(
                teacher, prompts, resolution=config.resolution, config=self.config, seed=self.seed, on_step=on_step
            )
            pictures = torch.cat([teacher.decode(one) for one in latents.split(1)])
            show.parent.mkdir(parents=True, exist_ok=True)
            write_png(contact_sheet(pictures.cpu(), 3), show)
            views = ViewPictures(pictures, teacher.azimuths.tolist(), half_width=config.multiview_half_width)
            fit: dict[str, Any] = {"steps": self.config.fit_steps, "seed": self.seed, "renderer": renderer}
            try:
                return gaussians_from_views(views, self.count, **fit, device=teacher.device, on_step=on_step)
            except InputError as error:
                remedy = f"look at {show}; another --seed, or more --init-sampling-steps, may help"
                raise InputError("--init", error.expected, error.got, remedy) from error


@dataclass(frozen=True)
class Beginning:
    """What a run starts from."""

    gaussians: Gaussians | None
    """None where only a saved run can go on, and where they are drawn."""
    described: dict[str, Any]
    """What identifies it."""
    work: Work | None = None
    """Of a splat that is changed."""
    source: PromptConfig | None = None
    """What that splat is, in words."""
    made: tuple[OptimizationState, list[dict[str, Any]]] | None = None
    """The first steps, where they are made already, and their lines of metrics.csv."""
    drawn: DrawnStart | None = None
    """How the teacher draws the Gaussians; None where it does not, and where a saved run goes on."""

    def start(
        self, teacher: DiffusersSDXL, prompts: ViewPrompts, config: OptimizeConfig, renderer: str, show: Path
    ) -> Gaussians | None:
        """The Gaussians; where they are drawn first, the pictures go to `show`. Errors: InputError."""
        if self.made is not None:
            return self.made[0].gaussians.detach()
        return self.gaussians if self.drawn is None else self.drawn.make(teacher, prompts, config, renderer, show)


def from_options(args: argparse.Namespace, seed: int, preset: Preset) -> Callable[[torch.device], Beginning]:
    """What begins a run as the options ask for."""

    def begin(device: torch.device) -> Beginning:
        if args.init != VIEWS:
            return Beginning(*start(args, seed, preset, device, args.resume))
        config, count, described = drawn_views(args, preset)
        return Beginning(None, described, drawn=None if args.resume else DrawnStart(count, config, seed))

    return begin
