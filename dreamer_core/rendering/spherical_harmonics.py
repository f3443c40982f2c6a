"""Real spherical harmonics of degree 0 to 3 (Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013)."""

from __future__ import annotations

import torch
from torch import Tensor


def sh_bases(degree: int, directions: Tensor) -> Tensor:
    """Values [..., (degree + 1)^2] of the bases at unit `directions` [..., 3], in the order of 3DGS."""
    x, y, z = directions.unbind(-1)
    bases = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        bases += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        bases += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        bases += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(bases, dim=-1)


def view_colors(
    means: Tensor,  # [N, 3]
    sh: Tensor,  # [N, (degree + 1)^2, 3]
    degree: int,
    viewmats: Tensor,  # [C, 4, 4] world -> camera
    orthographic: bool = False,
) -> Tensor:  # [N, 3] at degree 0, else [C, N, 3]
    """Colours seen from each camera, `max(sh(direction) + 0.5, 0)` as in gsplat and 3DGS."""
    if degree == 0:
        return (0.28209479177387814 * sh[:, 0] + 0.5).clamp_min(0.0)
    rotations, translations = viewmats[:, :3, :3], viewmats[:, :3, 3]
    if orthographic:
        directions = rotations[:, 2:].expand(-1, len(means), -1)  # [C, N, 3]
    else:
        positions = -(rotations.transpose(1, 2) @ translations[..., None])[..., 0]  # [C, 3]
        directions = torch.nn.functional.normalize(means - positions[:, None], dim=-1)
    bases = sh_bases(degree, directions)
    return (torch.einsum("cnk,nkd->cnd", bases, sh) + 0.5).clamp_min(0.0)
