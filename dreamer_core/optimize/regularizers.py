"""Terms that look at the rendered maps, and the disparity that depth steps encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..settings import Knob, Settings, own_settings


@dataclass(frozen=True)
class RegularizerConfig(Settings):
    """Weights of the terms that look at the scene instead of the teacher."""

    group: ClassVar[str] = "regularizers"

    tv_rgb: Annotated[
        float,
        Knob(
            "Weight against noise in the pictures: total variation, before clipping. Published: 1. Good: 0 to 10. "
            "0: off.",
            0.0,
            1000.0,
            0.01,
            label="smooth colours",
        ),
    ] = 1.0
    tv_disparity: Annotated[
        float,
        Knob(
            "Weight against a rough surface: total variation of disparity. Published: 1. Good: 0 to 10. 0: off.",
            0.0,
            1000.0,
            0.01,
            label="smooth surface",
        ),
    ] = 1.0
    scale: Annotated[
        float,
        Knob(
            "Weight of the Gaussians' mean size (world units). Published: 1. Good: 0 to 5. 0: off.",
            0.0,
            1000.0,
            0.01,
            label="small Gaussians",
        ),
    ] = 1.0
    opacity: Annotated[
        float,
        Knob(
            "Weight of the mean opacity. Published: 0. Good: 0.01 to 1 with mcmc. 0: off.",
            0.0,
            1000.0,
            0.005,
            label="faint Gaussians",
            advanced=True,
        ),
    ] = 0.0
    opacity_entropy: Annotated[
        float,
        Knob(
            "Weight against half-transparency: mean binary entropy of the opacities. Published: 0. Good: 0.01 "
            "to 1. 0: off.",
            0.0,
            1000.0,
            0.005,
            label="solid or gone",
            advanced=True,
        ),
    ] = 0.0
    anisotropy: Annotated[
        float,
        Knob(
            "Weight against Gaussians longer than max_anisotropy allows. Published: 0. Good: 0.1 to 1. 0: off.",
            0.0,
            1000.0,
            0.005,
            label="no needles",
            advanced=True,
        ),
    ] = 0.0
    max_anisotropy: Annotated[
        float,
        Knob(
            "Longest over shortest axis (a ratio) from which a Gaussian counts as a needle. Good: 4 to 20.",
            1.0,
            1000.0,
            0.5,
            label="needle ratio",
            advanced=True,
        ),
    ] = 10.0


TERMS = tuple(s.field for s in own_settings(RegularizerConfig) if s.field != "max_anisotropy")
"""Names of the terms: those of their weights."""


def total_variation(images: Tensor) -> Tensor:
    """Twice the squared differences of neighbours in [B, H, W, C], averaged along each axis and added (published)."""
    vertical = (images[:, 1:] - images[:, :-1]).square().mean()
    horizontal = (images[:, :, 1:] - images[:, :, :-1]).square().mean()
    return 2.0 * (vertical + horizontal)


def scene_terms(gaussians: Gaussians, weights: RegularizerConfig) -> dict[str, Tensor]:
    """The weighted terms on the parameters themselves whose weight is not 0, by name; scalars with a graph."""
    terms: dict[str, Tensor] = {}
    if weights.scale > 0:
        terms["scale"] = weights.scale * gaussians.scales.mean()
    if weights.opacity > 0:
        terms["opacity"] = weights.opacity * gaussians.opacities.mean()
    if weights.opacity_entropy > 0:
        logits = gaussians.logit_opacities
        # H(p) = -p log p - (1 - p) log(1 - p), stable in the logit.
        entropy = torch.nn.functional.softplus(logits) - logits * logits.sigmoid()
        terms["opacity_entropy"] = weights.opacity_entropy * entropy.mean()
    if weights.anisotropy > 0:
        ratio = (gaussians.log_scales.amax(dim=1) - gaussians.log_scales.amin(dim=1)).exp()
        excess = (ratio - weights.max_anisotropy).clamp_min(0.0) / weights.max_anisotropy
        terms["anisotropy"] = weights.anisotropy * excess.mean()
    return terms


def normalized_disparity(depth_sums: Tensor, alphas: Tensor, fov: Tensor) -> Tensor:
    """Disparity in [0, 1] of every view [B, H, W, 1] (Dreamer XL's code, gaussian_renderer:150).

    d = f / (D + 10 T + 1e-5) with D the accumulated depth, T = 1 - alpha and f = 1 / (2 tan(fov / 2)); `fov` [B] in
    radians. Min-max to [0, 1]; the minimum is taken where T <= 0.1, so that holes and background become 0.
    """
    transmittance = 1.0 - alphas
    focal = 0.5 / torch.tan(fov / 2)
    disparity = focal[:, None, None, None] / (depth_sums + 10.0 * transmittance + 1e-5)
    with torch.no_grad():
        solid = transmittance <= 0.1
        inf = torch.tensor(float("inf"), device=disparity.device)
        low = torch.where(solid, disparity, inf).amin(dim=(1, 2, 3), keepdim=True)
        high = disparity.amax(dim=(1, 2, 3), keepdim=True)
        low = torch.where(torch.isfinite(low), low, disparity.amin(dim=(1, 2, 3), keepdim=True))
        span = (high - low).clamp_min(1e-5)
    return ((disparity - low) / span).clamp(0.0, 1.0)
