"""The texture of a mesh that is there already, from pictures of a splat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..errors import InputError
from ..gaussians import Gaussians
from ..initializers.mesh import Mesh
from .bake import Baked, bake
from .config import MeshConfig
from .fusion import BAND, distances
from .looks import cameras_around, checked, extent, look_around
from .packages import require_packages
from .surface import Surface
from .textured import Floats, TexturedMesh
from .unwrap import unwrap

READ = ("texture", "views", "resolution")
"""What painting reads of a `MeshConfig`."""
ENOUGH = 0.5
"""Share of the vertices that have to lie on the splat's surface."""
TOLERANCE = 2.0
"""Texels may lie so many bands behind the surface: large triangles cut corners."""
LEAST = 0.05
"""Share of the texels that a picture has to see."""
OVERLAP, SMALLEST = 1.25, 1e-6
"""Largest area of all triangles in the texture, as a multiple of what they cover, and the smallest at all."""


def paint_mesh(
    gaussians: Gaussians,
    mesh: Mesh,
    config: MeshConfig | None = None,
    renderer: str = "auto",
    tick: Callable[[], None] = lambda: None,
    *,
    field: str = "mesh",
) -> tuple[TexturedMesh, float]:
    """`mesh` with a texture of the splat's colours, and the share of it that was seen; the rest is its neighbours'.

    Vertices, triangles and UVs stay as they come.

    A mesh without UVs is laid out by xatlas. Both lie in the same world, in the same units. `tick` is called once for
    every view. Errors: InputError for missing packages, NaN or inf, UVs outside of the texture or on one another, and a
    mesh most of which lies elsewhere than the splat or is seen by no picture.
    """
    config = config or MeshConfig()
    require_packages(field)
    for name, values in (("vertices", mesh.vertices), ("UVs", mesh.uv)):
        if values is not None and not np.isfinite(values).all():
            raise InputError(field, "finite numbers", f"NaN or inf in its {name}")
    if mesh.uv is not None and not (mesh.uv.min() >= -1e-4 and mesh.uv.max() <= 1 + 1e-4):
        got = f"UVs from {mesh.uv.min():.3g} to {mesh.uv.max():.3g}"
        raise InputError(field, "UVs from 0 to 1: one place in the texture for each triangle", got, "unwrap it first")
    with torch.inference_mode(False), torch.no_grad():
        scene = checked(gaussians, "splat").detach()
        place = extent(scene)
        looks = look_around(scene, place, cameras_around(place, config.views, config.resolution), renderer, tick)
        band = BAND * float((place.high - place.low).max()) / config.cells
        vertices, faces = mesh.vertices.astype(np.float32), mesh.faces
        tensor = torch.from_numpy
        near = distances(tensor(vertices).to(scene.device), looks, band).abs() < 1
        share = float(near.float().mean())
        if share < ENOUGH:
            raise InputError(
                field,
                "a surface of this splat, in its place and size",
                f"one of which {share:.0%} of the vertices lie on the splat",
                "Dreamer XL Mesh leaves it in place with size 0 and origin splat",
            )
        welded, outwards = smooth_normals(vertices, faces)
        if mesh.uv is None:
            layout = unwrap(Surface(vertices, faces), outwards, config.texture)
            vertices, outwards, faces, uv = (
                vertices[layout.source], outwards[layout.source], layout.faces, layout.uv
            )  # fmt: skip
        else:
            uv = mesh.uv.astype(np.float32).clip(0, 1)
        a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
        uv_area = float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2)
        places, flat, corners = (tensor(x).to(scene.device) for x in (vertices, uv, faces))

        def painted(normals: Floats) -> Baked:
            return bake(
                places, tensor(normals).to(scene.device), flat, corners, looks, TOLERANCE * band, config.texture
            )

        found = painted(outwards)
        if found.seen < ENOUGH:  # perhaps the triangles are wound the other way
            other = painted(-outwards)
            found, outwards = (other, -outwards) if other.seen > found.seen else (found, outwards)
    if uv_area > OVERLAP * found.covered or uv_area < SMALLEST:
        got = f"UVs of {uv_area:.2g} of the texture, which cover {found.covered:.2g} of it"
        raise InputError(field, "UVs with a place of its own for every triangle", got, "unwrap it first")
    if found.seen < LEAST:
        got = f"one of which the pictures of the splat see {found.seen:.0%}"
        raise InputError(field, "a surface whose triangles face outwards", got, "check its winding, or triangles")
    return TexturedMesh(vertices, outwards, uv, faces, found.texture, welded.watertight), found.seen


def smooth_normals(vertices: Floats, faces: np.ndarray) -> tuple[Surface, Floats]:
    """The surface with each place once, and unit normals [V, 3] of `vertices`, weighted by the triangles' areas.

    Vertices of one place (the two sides of a seam) have one normal.
    """
    surface, index = Surface.welded(vertices, faces)
    places = surface.vertices
    a, b, c = (places[surface.faces[:, i]].astype(np.float64) for i in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros((len(places), 3))
    for corner in range(3):
        np.add.at(total, surface.faces[:, corner], across)
    unit = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
    return surface, unit.astype(np.float32)[index]
