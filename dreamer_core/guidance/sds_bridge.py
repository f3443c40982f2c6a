"""SDS-Bridge: score distillation as a bridge from artefacts to the prompt (arXiv 2406.09417)."""

from __future__ import annotations

from torch import Tensor

from ..diffusion.predictor import NoisePredictor
from .base import GuidanceConditioning, GuidanceResult, Timesteps, evaluate_together


def sds_bridge(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    *,
    scale: float = 1.0,
) -> GuidanceResult:
    """grad = scale sigma_t (e_y(x_t) - e_{y + artefact words}(x_t)); the source distribution is named in words.

    Errors: ValueError where `cond.artefact` is missing.
    """
    if cond.artefact is None:
        raise ValueError("sds_bridge needs GuidanceConditioning.artefact, the prompt with words for artefacts")
    sigma = float(predictor.sigmas[steps.t])
    x_t = z + sigma * noise
    requests = [(x_t, sigma, cond.positive), (x_t, sigma, cond.artefact)]
    positive, artefact = evaluate_together(predictor, requests)
    return GuidanceResult(scale * sigma * (positive - artefact), calls=1, samples=2)
