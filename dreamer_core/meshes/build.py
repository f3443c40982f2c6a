"""A splat's mesh, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..gaussians import Gaussians
from .bake import bake
from .config import MeshConfig
from .fusion import BAND, fuse, grid_around
from .looks import cameras_around, checked, extent, look_around
from .packages import require_packages
from .surface import decimate, extract, normals, smoothed, solid_field
from .textured import Floats, TexturedMesh
from .unwrap import unwrap


def build_mesh(
    gaussians: Gaussians,
    config: MeshConfig | None = None,
    renderer: str = "auto",
    tick: Callable[[], None] = lambda: None,
    *,
    field: str = "splat",
) -> TexturedMesh:
    """A closed, textured mesh of a splat of our world, on the splat's device. `tick` is called once for every view.

    Depths rendered from all around are fused into a signed distance, whose surface is extracted, simplified, laid out
    and coloured from the same pictures. Errors: InputError for missing packages, NaN or inf, and a splat without a
    surface.
    """
    config = config or MeshConfig()
    require_packages(field)
    with torch.inference_mode(False), torch.no_grad():
        scene = checked(gaussians, field).detach()
        place = extent(scene)
        looks = look_around(scene, place, cameras_around(place, config.views, config.resolution), renderer, tick)
        grid = grid_around(place, config.cells)
        distance = solid_field(fuse(looks, grid).cpu().numpy(), config.smallest_part)
        distance = smoothed(distance, config.smooth)
        surface = decimate(extract(distance, grid), config.triangles)
        outwards = normals(distance, grid, surface.vertices)
        layout = unwrap(surface, outwards, config.texture)
        tensor = torch.from_numpy
        texture = bake(
            tensor(surface.vertices[layout.source]).to(scene.device),
            tensor(outwards[layout.source]).to(scene.device),
            tensor(layout.uv).to(scene.device),
            tensor(layout.faces).to(scene.device),
            looks,
            BAND * grid.cell,
            config.texture,
        ).texture
    return TexturedMesh(
        _placed(surface.vertices, config)[layout.source],
        outwards[layout.source],
        layout.uv,
        layout.faces,
        texture,
        surface.watertight,
    )


def _placed(vertices: Floats, config: MeshConfig) -> Floats:
    """In metres, with the origin where it is wanted."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    origin = np.zeros(3, dtype=np.float32) if config.origin == "splat" else (low + high) / 2
    if config.origin == "ground":
        origin[1] = low[1]
    scale = config.size / float((high - low).max()) if config.size else 1.0
    return ((vertices - origin) * scale).astype(np.float32)
