"""Guidance: each method turns clean latents into a latent gradient; each is one small function."""

from .asd import asd
from .base import (
    GuidanceConditioning,
    GuidanceResult,
    Timesteps,
    WeightedNegative,
    classifier_free,
    guided_noise,
)
from .clipping import clip_depth_gradient, clip_pixel_gradient
from .csd import csd
from .ism import ism
from .sdi import sdi
from .sds import sds
from .sds_bridge import sds_bridge
from .tsm import tsm

__all__ = [
    "GuidanceConditioning",
    "GuidanceResult",
    "Timesteps",
    "WeightedNegative",
    "asd",
    "classifier_free",
    "clip_depth_gradient",
    "clip_pixel_gradient",
    "csd",
    "guided_noise",
    "ism",
    "sdi",
    "sds",
    "sds_bridge",
    "tsm",
]
