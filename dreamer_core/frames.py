"""Changes of frame: that between our world and files, and any other.

Our world has Y up and its front on +Z, 3DGS files and ComfyUI's SPLAT have Y down and Z forward. Between them lies half
a turn about X, its own inverse: (x, y, z) -> (x, -y, -z).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .gaussians import Gaussians
from .rendering.spherical_harmonics import sh_bases

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


def rotated(gaussians: Gaussians, rotation: Tensor) -> Gaussians:  # rotation [3, 3]
    """The object turned about the origin, or mirrored too: centres, axes and view-dependent colours.

    A Gaussian is its own mirror image through its centre, so that a mirror matrix M turns its axes by -M.
    """
    from scipy.spatial.transform import Rotation  # brought by ComfyUI

    r = rotation.to(gaussians.means)
    turn = rotation.cpu().double().numpy()
    x, y, z, w = Rotation.from_matrix(turn if np.linalg.det(turn) > 0 else -turn).as_quat().tolist()
    a, b, c, d = gaussians.quats.unbind(-1)
    quats = torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        dim=-1,
    )
    shN = gaussians.shN
    if shN.shape[1]:
        shN = torch.einsum("jk,nkc->njc", _sh_rotation(gaussians.sh_degree, rotation).to(shN), shN)
    return replace(gaussians, means=gaussians.means @ r.T, quats=quats, shN=shN)


def _sh_rotation(degree: int, rotation: Tensor) -> Tensor:  # [K, K]
    """Turns coefficients of degree 1 and above: with it, basis(d) c' = basis(R^T d) c for every direction d."""
    directions = torch.nn.functional.normalize(
        torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    )
    r = rotation.cpu().double()
    return torch.linalg.lstsq(sh_bases(degree, directions), sh_bases(degree, directions @ r)).solution[1:, 1:]
