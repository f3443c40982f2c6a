"""Terms that look at the rendered maps, and the disparity that depth steps encode."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gaussians import Gaussians
from .config import RegularizerConfig


def total_variation(images: Tensor) -> Tensor:
    """Squared differences of neighbours in [B, H, W, C], averaged along each axis and added."""
    vertical = (images[:, 1:] - images[:, :-1]).square().mean()
    horizontal = (images[:, :, 1:] - images[:, :, :-1]).square().mean()
    return vertical + horizontal


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
