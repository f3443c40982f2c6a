"""How a MODEL's noisy latents relate to the VE latents of unit deviation that guidance works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import comfy.model_sampling
import torch
from torch import Tensor

from ...dreamer_core.errors import InputError

UNUSABLE = (comfy.model_sampling.IMG_TO_IMG_FLOW, comfy.model_sampling.IMG_TO_IMG)
"""Predict one picture from another: there is no noise to match."""


@dataclass(frozen=True)
class NoiseForm:
    """A MODEL's own form of noisy latents.

    VE: x = z + sigma n, with z of unit deviation. EDM: x' = d x at sigma' = d sigma, where d is the deviation of its
    clean latents (Karras et al., 2206.00364, sigma_data). Flow matching: x' = (1 - s) d z + s k n = (1 - s) d x at
    s = d sigma / (k + d sigma).
    """

    deviation: float = 1.0
    flow: bool = False
    noise_scale: float = 1.0
    """k, of flow matching."""

    def levels(self, own: Tensor) -> Tensor:
        """VE sigmas [T] ascending, float64 on the CPU, of the MODEL's own `own` [T]."""
        own = own.detach().cpu().double()  # MPS has no float64
        if not self.flow:
            return own / self.deviation
        own = own[own < 1.0]  # pure noise has no finite level
        return self.noise_scale * own / (1.0 - own) / self.deviation

    def sigma(self, level: float) -> float:
        """The MODEL's own sigma of a VE level."""
        sigma = level * self.deviation
        return sigma / (self.noise_scale + sigma) if self.flow else sigma

    def scaled(self, x: Tensor, level: float) -> Tensor:
        """The MODEL's own form of VE latents at a level."""
        x = x * self.deviation
        return x * (1.0 - self.sigma(level)) if self.flow else x


def in_playgrounds_latents(model: Any) -> bool:
    """Whether a MODEL works on Playground 2.5's latents, which have half the deviation of SDXL's."""
    return isinstance(model.get_model_object("latent_format"), comfy.latent_formats.SDXL_Playground_2_5)


def noise_form(model: Any) -> NoiseForm:
    """Of a MODEL with its patches. Errors: InputError where it does not denoise."""
    sampling = model.get_model_object("model_sampling")
    deviation = float(model.get_model_object("latent_format").scale_factor) if in_playgrounds_latents(model) else 1.0
    if isinstance(sampling, comfy.model_sampling.CONST) and not isinstance(sampling, UNUSABLE):
        return NoiseForm(deviation, flow=True, noise_scale=float(getattr(sampling, "noise_scale", 1.0)))
    if not isinstance(sampling, comfy.model_sampling.EPS) or isinstance(sampling, UNUSABLE):
        kinds = [kind for kind in type(sampling).__mro__ if kind.__module__ == comfy.model_sampling.__name__]
        forms = [kind.__name__ for kind in kinds if not issubclass(kind, torch.nn.Module)]
        got = f"one that is sampled as {(forms or [type(sampling).__name__])[0]}"
        raise InputError("model", "a MODEL that predicts eps, v, x0 or a flow", got, "leave that patch out")
    return NoiseForm(deviation)
