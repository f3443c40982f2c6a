"""Guidance: each method turns clean latents into a latent gradient; each is one small function."""

from .base import GuidanceConditioning, GuidanceResult, Timesteps, classifier_free
from .clipping import clip_depth_gradient, clip_pixel_gradient
from .ism import ism
from .sds import sds
from .tsm import tsm

__all__ = [
    "GuidanceConditioning",
    "GuidanceResult",
    "Timesteps",
    "classifier_free",
    "clip_depth_gradient",
    "clip_pixel_gradient",
    "ism",
    "sds",
    "tsm",
]
