"""SDS-Bridge: score distillation as a bridge from artefacts to the prompt (arXiv 2406.09417)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..teachers.noise_levels import noise_level
from ..teachers.teacher import Request, Teacher
from .base import GuidanceConditioning, GuidanceResult, Timesteps
from .method import PATH, CfgScale, Method


@dataclass(frozen=True)
class SDSBridge(Method):
    """SDS-Bridge (2406.09417): moves away from the faults that the prompt's artefacts name.

    grad = cfg sigma_t (e_y(x_t) - e_{y + artefact words}(x_t)); the source distribution is named in words.
    """

    name = "sds_bridge"
    ignores = (*PATH, "rescale")
    combines = False
    needs_artefacts = True
    cfg: CfgScale = 100.0

    def __call__(
        self,
        predictor: Teacher,
        z: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        steps: Timesteps,
        cond: GuidanceConditioning,
    ) -> GuidanceResult:
        """As of every method. Errors: ValueError where `cond.artefact` is missing."""
        if cond.artefact is None:
            raise ValueError("sds_bridge needs GuidanceConditioning.artefact, the prompt with words for artefacts")
        sigma = noise_level(predictor.sigmas, steps.t)
        x_t = z + sigma * noise
        requests = [Request(x_t, sigma, cond.positive, "positive"), Request(x_t, sigma, cond.artefact, "negative")]
        positive, artefact = predictor.predict(requests)
        return GuidanceResult(self.cfg * sigma * (positive - artefact), calls=1, samples=2)
