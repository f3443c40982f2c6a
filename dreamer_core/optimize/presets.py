"""Named configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from ..gaussians import Gaussians
from ..guidance import ClipConfig, GuidanceConfig
from ..guidance.sds import SDS
from ..guidance.tsm import TSM
from ..initializers import initial_shape
from ..orbit import OrbitConfig, with_angles
from ..setting_values import changed, values
from .backgrounds import BackgroundConfig
from .cleanup import CleanupConfig
from .density_config import DensityConfig
from .learning_rates import LearningRates
from .recipe import OptimizeConfig
from .regularizers import RegularizerConfig

RELEASED_NEGATIVE = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, oversaturation."
)
"""Of three of the four published configurations; the fourth lacks two of the words."""


@dataclass(frozen=True)
class Preset:
    """A configuration under a name, with what a run needs beside it."""

    about: str
    config: OptimizeConfig
    count: int
    """Gaussians of the initial shape; published are 4,096 points with 20 offsets each."""
    negative: str = ""
    """What to steer away from, where the user names nothing."""
    size: float = 0.6
    """Radius of the initial shape in world units."""
    opacity: float = 0.1
    """Of the initial Gaussians; 0.1 is published."""

    change: OptimizeConfig | None = None
    """What runs that change a splat go by, where that is not `config`."""

    def start(self, generator: torch.Generator) -> Gaussians:
        """The initial sphere."""
        return initial_shape("sphere", self.count, generator, size=self.size, opacity=self.opacity)


OFFICIAL = OptimizeConfig()
"""The released code's configuration, value by value; docs/method.md names what differs and why."""

PAPER = replace(
    OFFICIAL,
    guidance=replace(OFFICIAL.guidance, method=TSM(gamma=0.3)),
    clip=replace(OFFICIAL.clip, depth_mode="per_pixel"),
)
"""The same with what the paper's text says otherwise: gamma as it counts it, depth clipped pixel by pixel."""

FAST = replace(
    PAPER,
    steps=800,
    views=2,
    resolution=768,
    schedule_steps=800,
    multiview_share=(0.5, 0.1),
    guidance=replace(PAPER.guidance, warmup_steps=240),
    cameras=replace(PAPER.cameras, progress_every=200),
    learning_rates=LearningRates(means=(2e-3, 5e-5), sh0=(1e-2, 5e-3), log_scales=(8e-3, 2e-3)),
    density=replace(PAPER.density, start=50, stop=600, every=50, reset_every=0),
    cleanup=CleanupConfig(),
)

MULTIVIEW = replace(FAST, multiview_share=(0.7, 0.2))
"""Half of the steps against second faces; the others from free cameras, for what six views do not show."""

LOW_VRAM = replace(
    PAPER,
    views=2,
    resolution=768,
    memory="low",
    density=replace(PAPER.density, max_gaussians=300_000),
    cleanup=CleanupConfig(),
)

STARTER_ORBIT = OrbitConfig(
    radius=(3.6, 3.6),
    fov=(math.degrees(0.61), math.degrees(0.61)),
    fov_pool_views=0,
    progress_every=0,
    elevation=(-10.0, 45.0),
    center_jitter=0.0,
    target_jitter=0.0,
    up_jitter=0.0,
)
"""The cameras of the starter's training images, and so of its preset."""

STARTER = OptimizeConfig(
    steps=300,
    views=2,
    resolution=128,
    schedule_steps=300,
    depth_share=0.0,
    scale_noise=0.0,
    guidance=GuidanceConfig(
        method=SDS(cfg=4.0),
        t_min=50,
        t_max=300,
        warmup_steps=300,
        t_widening=650,
        t_lift=750,
        cfg_fade=0.83,
        offset_noise=0.0,
        flip=0.0,
    ),
    cameras=STARTER_ORBIT,
    background=BackgroundConfig(white=0.5, black=0.17),
    clip=ClipConfig(threshold=0.05),
    learning_rates=LearningRates(
        means=(1.2e-2, 1e-3),
        quats=(6e-3, 1e-3),
        log_scales=(2.4e-2, 4e-3),
        logit_opacities=(0.15, 0.05),
        sh0=(0.16, 0.02),
        betas=(0.9, 0.99),
    ),
    density=DensityConfig(enabled=False),
    regularizers=RegularizerConfig(tv_rgb=0.0, tv_disparity=0.0, scale=0.0),
    cleanup=CleanupConfig(),
)
"""From coarse to fine: t falls from 800 to 950 at first to 50 to 300 at last, and guidance from 4 to 1.5.

The starter's teacher knows its objects so well that one prompt means one picture. There SDS at low guidance comes
nearer to the true objects than TSM (docs/starter.md).
"""

STARTER_TRAJECTORY = replace(
    STARTER,
    steps=150,
    schedule_steps=150,
    views=2,
    guidance=GuidanceConfig(warmup_steps=45, offset_noise=0.0, flip=0.0),
    background=BackgroundConfig(),
    learning_rates=LearningRates(
        means=(4e-3, 1e-3),
        quats=(2e-3, 1e-3),
        log_scales=(8e-3, 4e-3),
        logit_opacities=(0.05, 0.05),
        sh0=(0.08, 0.04),
        betas=(0.9, 0.99),
    ),
)
"""TSM on the starter: what its preset was before SDS took its place, and what methods are compared with."""

STARTER_SIDES: dict[str, Any] = {
    "left": "left side view",
    "right": "right side view",
    "overhead": "overhead view",
    "overhead_from": -10.0,
    "overhead_to": 90.0,
}
"""Of the prompt: what the starter's captions call the object's own left and right, and how they tell the height."""

SCHEDULE = ("schedule_steps", "cameras.progress_every")
Config = TypeVar("Config", bound=OptimizeConfig)


def configured(config: Config, given: Mapping[str, Any], angles: str | None = None) -> Config:
    """`config` with a camera preset's angles, then with all `given` settings by dotted name. Errors: InputError.

    How often angles grow follows from the schedule as it is given.
    """
    if angles is not None:
        config = changed(config, {name: given[name] for name in SCHEDULE if name in given})
        config = replace(config, cameras=with_angles(config.cameras, angles, config.schedule_steps))
    return changed(config, given)


def unread(config: OptimizeConfig, base: OptimizeConfig, given: Iterable[str]) -> dict[str, str]:
    """Of the given settings, or ends of pairs, those that differ from `base` and have no effect -> why.

    A group that is switched off reads its switch alone, and a method does without some of the shared settings.
    """
    now, before = dict(values(config)), dict(values(base))
    method, found = config.guidance.method, {}
    for name in given:
        whole = name if name in now else name.rpartition("_")[0]
        group, _, field = whole.rpartition(".")
        if whole not in now or now[whole] == before.get(whole):
            continue
        if group == "guidance" and field in method.ignores:
            found[name] = f"{method.name} does not read it"
        elif field != "enabled" and now.get(f"{group}.enabled") is False:
            found[name] = f"{group}.enabled is false"
        elif config.clip.mode == "off" and name in ("clip.threshold", "clip.ramp_from", "clip.ramp_steps"):
            found[name] = "clip.mode is off"
    return found


PRESETS: dict[str, Preset] = {
    "official": Preset("the released code's values", OFFICIAL, 81_920, RELEASED_NEGATIVE),
    "paper": Preset("the same, except where the paper's text says otherwise", PAPER, 81_920, RELEASED_NEGATIVE),
    "fast": Preset("a third of the steps at 768 pixels", FAST, 40_000, RELEASED_NEGATIVE),
    "multiview": Preset(
        "as fast, with more steps for a multi-view adapter against second faces", MULTIVIEW, 40_000, RELEASED_NEGATIVE
    ),
    "low_vram": Preset("768 pixels and two views, for cards of 12 GB", LOW_VRAM, 40_000, RELEASED_NEGATIVE),
    "starter": Preset(
        "for the built-in checkpoint, a minute or two on two CPU cores",
        STARTER,
        4_000,
        size=0.8,
        opacity=0.02,
        change=STARTER_TRAJECTORY,
    ),
}
