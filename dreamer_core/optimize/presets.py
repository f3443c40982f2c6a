"""Named configurations."""

from __future__ import annotations

from dataclasses import replace

from ..cameras import OrbitConfig
from ..guidance.clipping import ClipConfig
from .cleanup import CleanupConfig
from .config import (
    DensityConfig,
    GuidanceConfig,
    LearningRates,
    OptimizeConfig,
    RegularizerConfig,
)

OFFICIAL = OptimizeConfig()
"""The released code's configuration (its gamma 0.3 amounts to 0.954 as the paper counts)."""

PAPER = replace(OFFICIAL, guidance=replace(OFFICIAL.guidance, gamma=0.3))
"""The same with the gamma that the paper's text names best."""

FAST = replace(
    PAPER,
    steps=800,
    views=2,
    resolution=768,
    schedule_steps=800,
    guidance=replace(PAPER.guidance, warmup_steps=240),
    cameras=replace(PAPER.cameras, progress_every=200),
    learning_rates=LearningRates(means=(2e-3, 5e-5), sh0=(1e-2, 5e-3), log_scales=(8e-3, 2e-3)),
    density=replace(PAPER.density, start=50, stop=600, every=50, reset_every=0),
    cleanup=CleanupConfig(),
)
"""A third of the steps, half of the views, 768 pixels."""

LOW_VRAM = replace(
    PAPER,
    views=2,
    resolution=768,
    memory="low",
    density=replace(PAPER.density, max_gaussians=300_000),
    cleanup=CleanupConfig(),
)
"""For cards of 12 GB: the paper's steps at 768 pixels with half of the views; what can be is computed twice."""

STARTER_ORBIT = OrbitConfig(
    radius=(3.4, 3.8),
    fov=(0.58, 0.64),
    progress_every=0,
    elevation=(-10.0, 45.0),
    center_jitter=0.02,
    target_jitter=0.02,
    up_jitter=0.01,
)
"""The cameras of the starter's training images, and so of its preset."""

STARTER = OptimizeConfig(
    steps=150,
    views=2,
    resolution=128,
    schedule_steps=150,
    depth_share=0.0,
    scale_noise=0.0,
    guidance=GuidanceConfig(warmup_steps=45, offset_noise=0.0, flip=0.0),
    cameras=STARTER_ORBIT,
    clip=ClipConfig(threshold=0.05),
    learning_rates=LearningRates(
        means=(4e-3, 1e-3),
        quats=(2e-3, 1e-3),
        log_scales=(8e-3, 4e-3),
        logit_opacities=(0.05, 0.05),
        sh0=(0.08, 0.04),
        betas=(0.9, 0.99),
    ),
    density=DensityConfig(enabled=False),
    regularizers=RegularizerConfig(tv_rgb=0.0, tv_disparity=0.0, scale=0.0),
    cleanup=CleanupConfig(),
)
"""For the built-in starter checkpoint: 128 pixels, a minute on two CPU cores. Twice the steps make blobs."""

PRESETS: dict[str, OptimizeConfig] = {
    "official": OFFICIAL,
    "paper": PAPER,
    "fast": FAST,
    "low_vram": LOW_VRAM,
    "starter": STARTER,
}

INITIAL_COUNT: dict[str, int] = {
    "official": 81_920,
    "paper": 81_920,
    "fast": 40_000,
    "low_vram": 40_000,
    "starter": 4_000,
}
"""Gaussians of the initial shape; the published 4,096 points with 20 offsets each, and less where time is short or the
resolution lower."""
