"""Pictures of a textured mesh, without light: to compare it with its splat."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras
from .raster import rasterize_triangles
from .textured import TexturedMesh


def pictures(mesh: TexturedMesh, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The mesh without light [C, H, W, 3] on white, its texture interpolated, and its coverage [C, H, W]."""
    vertices, faces, uv = (torch.from_numpy(x) for x in (mesh.vertices, mesh.faces, mesh.uv))
    texture = torch.tensor(mesh.texture).float().permute(2, 0, 1)[None] / 255
    found, covered = [], []
    for viewmat, k in zip(cameras.viewmats, cameras.Ks):
        x, y, z = (vertices @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
        flat = torch.stack([x / z * k[0, 0] + k[0, 2], y / z * k[1, 1] + k[1, 2], z], -1)
        triangle, weights = rasterize_triangles(flat[faces], cameras.width, cameras.height)
        # Weights are linear in the picture; on the surface they are so after division by depth.
        weights = weights / z[faces[triangle]]
        weights = weights / weights.sum(-1, keepdim=True)
        places = (uv[faces[triangle]] * weights[..., None]).sum(-2) * 2 - 1
        color = torch.nn.functional.grid_sample(texture, places[None], align_corners=False)[0].permute(1, 2, 0)
        found.append(torch.where(triangle[..., None] >= 0, color, 1.0))
        covered.append(triangle >= 0)
    return torch.stack(found), torch.stack(covered)
