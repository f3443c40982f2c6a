"""Guidance: each method turns clean latents into a latent gradient; each is one file."""

from .base import (
    GuidanceConditioning,
    GuidanceResult,
    Timesteps,
    WeightedNegative,
    guided_noise,
)
from .clipping import ClipConfig, clip_depth_gradient, clip_pixel_gradient
from .method import Method
from .methods import METHODS, GuidanceConfig, sample_timesteps

__all__ = [
    "METHODS",
    "ClipConfig",
    "GuidanceConditioning",
    "GuidanceConfig",
    "GuidanceResult",
    "Method",
    "Timesteps",
    "WeightedNegative",
    "clip_depth_gradient",
    "clip_pixel_gradient",
    "guided_noise",
    "sample_timesteps",
]
