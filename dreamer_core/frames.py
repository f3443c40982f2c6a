"""The one change of frame: our world (Y up, front +Z) and that of 3DGS files and ComfyUI's SPLAT (Y down, Z forward).

It is half a turn about X, its own inverse: (x, y, z) -> (x, -y, -z).
"""

from __future__ import annotations

import torch

from .gaussians import Gaussians

SH_SIGNS = (-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1)
"""Signs that half a turn about X gives the spherical harmonics of degree 1 to 3, in 3DGS order."""


def flip_frame(gaussians: Gaussians) -> Gaussians:
    """The same object in the other frame; twice gives the same rotations with quaternions of the other sign."""
    w, x, y, z = gaussians.quats.unbind(-1)
    signs = gaussians.shN.new_tensor(SH_SIGNS[: gaussians.shN.shape[1]])
    return Gaussians(
        means=gaussians.means * gaussians.means.new_tensor([1.0, -1.0, -1.0]),
        quats=torch.stack([-x, w, -z, y], dim=-1),  # (0, 1, 0, 0) (x) q
        log_scales=gaussians.log_scales,
        logit_opacities=gaussians.logit_opacities,
        sh0=gaussians.sh0,
        shN=gaussians.shN * signs[:, None],
    )
