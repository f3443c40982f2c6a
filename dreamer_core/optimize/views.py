"""The training views of a step: what is drawn at random, and the rendered maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..cameras import Cameras
from ..gaussians import Gaussians
from ..orbit import pooled_fov, sample_orbit
from ..rendering import RenderOutput, render
from ..teachers.multiview.cameras import GREY, group_cameras
from .backgrounds import sample_backgrounds
from .randomness import step_generator
from .recipe import Recipe
from .regularizers import normalized_disparity


@dataclass(frozen=True)
class DrawnViews:
    """What a step draws before it renders."""

    cameras: Cameras
    backgrounds: Tensor  # [B, 3]
    depth: bool
    """Whether disparity is encoded instead of colour."""
    flip: bool
    """Whether the batch is mirrored before it is encoded."""

    @property
    def shown(self) -> Cameras:
        """Whose angles the encoded pictures show."""
        return self.cameras.mirrored() if self.flip else self.cameras


@dataclass(frozen=True)
class RenderedViews:
    """The maps of a step, with their graph."""

    colors: Tensor  # [B, H, W, 3] in [0, 1]
    disparity: Tensor | None  # [B, H, W, 1] in [0, 1]
    infos: list[dict[str, Any]]
    """Of the renderer, one per render; density control reads them."""
    mean_scale: Tensor  # [], of all Gaussians as they were rendered
    alphas: Tensor  # [B, H, W, 1]
    depths: Tensor | None = None  # [B, H, W, 1] expected depth in world units, where the surface was asked for


def draw_views(config: Recipe, step: int, device: torch.device) -> DrawnViews:
    """Cameras, backgrounds and choices of a step; all follow from (seed, step)."""

    def place(pool: int) -> float:
        return float(torch.rand((), generator=step_generator(config.seed, pool, "fov")))

    orbit, views = config.cameras, config.views
    fov_places = pooled_fov(orbit, views, step, place)
    generator = step_generator(config.seed, step, "cameras")
    cameras = sample_orbit(orbit, views, config.resolution, step, generator, fov_places)
    backgrounds = sample_backgrounds(config.background, views, step_generator(config.seed, step, "background"))
    choices = torch.rand(2, generator=step_generator(config.seed, step, "choices")).tolist()
    return DrawnViews(
        cameras.to(device),
        backgrounds.to(device),
        depth=choices[0] < config.depth_share,
        flip=choices[1] < config.guidance.flip,
    )


def views_at_most(config: Recipe, azimuths: Tensor | None, devices: int = 1) -> int:
    """The most views that a step has on one of several devices, with a teacher of groups of views from these
    `azimuths` or of none; a group is on one."""
    views = -(-config.views // devices)
    if azimuths is None or not max(config.multiview_share) > 0:
        return views
    return max(views, len(azimuths))


def draws_group(config: Recipe, step: int) -> bool:
    """Whether a step looks at a group of views, where the teacher can; follows from (seed, step)."""
    place = float(torch.rand((), generator=step_generator(config.seed, step, "multiview")))
    return place < config.multiview_at(step)


def draw_group(config: Recipe, azimuths: Tensor, device: torch.device) -> DrawnViews:
    """The views of a multi-view adapter, on its grey; never mirrored, and in colour."""
    cameras = group_cameras(azimuths, config.resolution, config.multiview_half_width)
    backgrounds = torch.full((len(cameras), 3), GREY)
    return DrawnViews(cameras.to(device), backgrounds.to(device), depth=False, flip=False)


def render_drawn(
    gaussians: Gaussians, drawn: DrawnViews, config: Recipe, step: int, renderer: str, surface: bool = False
) -> RenderedViews:
    """Render the views of a step; every view sees scales of its own where `scale_noise` is on.

    Colours are cut off at 1 as displays do, so that the encoder sees pictures; there the gradient ends. `surface` gives
    depths, too, with a way for the gradient to where the Gaussians are.
    """
    with_depth = drawn.depth or config.regularizers.tv_disparity > 0

    def rendered(scene: Gaussians, cameras: Cameras, backgrounds: Tensor) -> RenderOutput:
        return render(
            scene, cameras, backgrounds=backgrounds, depth=with_depth or surface, depth_gradient=surface,
            backend=renderer,
        )  # fmt: skip

    if config.scale_noise > 0:
        generator = step_generator(config.seed, step, "scales")
        scenes = noisy_scales(gaussians, config.scale_noise, len(drawn.cameras), generator)
        outputs = [
            rendered(scene, drawn.cameras.at([view]), drawn.backgrounds[view : view + 1])
            for view, scene in enumerate(scenes)
        ]
    else:
        scenes, outputs = [gaussians], [rendered(gaussians, drawn.cameras, drawn.backgrounds)]
    disparity = None
    if with_depth:
        depth_sums = torch.cat([o.depth_sums for o in outputs if o.depth_sums is not None])
        disparity = normalized_disparity(depth_sums, torch.cat([o.alphas for o in outputs]), drawn.cameras.fov)
    return RenderedViews(
        torch.cat([o.colors for o in outputs]).clamp(0.0, 1.0),
        disparity,
        [o.info for o in outputs],
        torch.stack([scene.scales.detach().mean() for scene in scenes]).mean(),
        torch.cat([o.alphas for o in outputs]),
        torch.cat([o.expected_depths for o in outputs]) if surface else None,
    )


def noisy_scales(gaussians: Gaussians, amount: float, views: int, generator: torch.Generator) -> list[Gaussians]:
    """For every view, scales times 1 + N(0, amount), kept positive."""
    shape = gaussians.log_scales.shape
    noise = torch.stack([torch.randn(shape, generator=generator) for _ in range(views)])
    added = (1.0 + amount * noise).clamp_min(1e-6).log().to(gaussians.device)  # in one piece to a GPU
    return [gaussians.with_log_scales(gaussians.log_scales + of_view) for of_view in added]
