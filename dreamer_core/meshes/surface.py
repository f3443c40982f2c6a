"""A closed triangle surface from a signed distance on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .fusion import Grid
from .packages import package
from .textured import Faces, Floats

Field = NDArray[np.float32]
MOST_TOLERANCE = 0.05
"""Decimation moves the surface at most so far, as a share of the longest side; then it stops short of the target."""
HALVINGS = 10
"""Steps of the search for the tolerance that leaves the wanted number of triangles."""


@dataclass(frozen=True)
class Surface:
    """Triangles, each vertex once."""

    vertices: Floats  # [V, 3] world units
    faces: Faces  # [F, 3] counter-clockwise from outside

    @classmethod
    def welded(cls, vertices: Floats, faces: Faces) -> tuple[Surface, Faces]:
        """Triangles [F, 3] between `vertices` [V, 3], each place once; and which place every vertex has become [V]."""
        places, index = np.unique(vertices, axis=0, return_inverse=True)
        flat = index.reshape(-1)
        return cls(places, flat[faces]), flat

    @property
    def watertight(self) -> bool:
        """Whether every edge joins exactly two triangles that agree on which side is out."""
        edges = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        keys = edges[:, 0] * len(self.vertices) + edges[:, 1]
        back = edges[:, 1] * len(self.vertices) + edges[:, 0]
        return len(np.unique(keys)) == len(keys) and bool(np.array_equal(np.sort(keys), np.sort(back)))


def solid_field(field: Field, smallest_part: float) -> Field:
    """`field` without loose parts below a percentage of the largest part's volume, and without hollows that nothing
    leads into. Inside is negative. Errors: InputError where nothing is inside.
    """
    from scipy.ndimage import label

    parts, count = label(field < 0)
    if not count:
        raise InputError("splat", "a splat with a surface", "one that no picture shows as solid")
    volumes = np.bincount(parts.ravel())
    volumes[0] = 0
    kept = volumes >= max(1.0, smallest_part / 100 * volumes.max())
    found = np.where((field < 0) & ~kept[parts], np.float32(0.5), field)
    outside, _ = label(found >= 0)
    return np.where((found >= 0) & (outside != outside[0, 0, 0]), np.float32(-0.5), found)


def smoothed(field: Field, cells: float) -> Field:
    """`field` without bumps of a few cells. Errors: InputError where nothing solid is left."""
    from scipy.ndimage import gaussian_filter

    found = gaussian_filter(field, cells, mode="nearest") if cells > 0 else field
    if not found.min() < 0:
        raise InputError("smooth", "a splat that is thicker than what is smoothed", f"{cells:g} cells", "lower it")
    # A grid value of exactly 0 would give triangles without an area.
    return np.where(np.abs(found) < 1e-4, np.float32(1e-4), found)


def extract(field: Field, grid: Grid) -> Surface:
    """The surface where the field is 0, by marching cubes (Lewiner et al. 2003, in scikit-image)."""
    vertices, faces, _, _ = package("skimage.measure").marching_cubes(field, 0.0)
    places = vertices * grid.cell + grid.origin.cpu().numpy()
    return Surface(places.astype(np.float32), faces.astype(np.int64))


def normals(field: Field, grid: Grid, places: Floats) -> Floats:
    """Unit gradients [V, 3] of the field at world positions [V, 3]: outwards, and smooth over any triangles."""
    from scipy.ndimage import map_coordinates

    cells = ((places - grid.origin.cpu().numpy()) / grid.cell).T
    slopes = [map_coordinates(np.gradient(field, axis=axis), cells, order=1, mode="nearest") for axis in range(3)]
    found = np.stack(slopes, -1)
    return (found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-9)).astype(np.float32)


def decimate(surface: Surface, triangles: int) -> Surface:
    """The same surface with at most `triangles` triangles (0: as it is), closed as before.

    manifold3d collapses edges only where the result stays a closed manifold; fast-simplification and pyfqmr are
    quicker, but tore two of twelve test surfaces. Its measure is a distance, so the distance is searched for.
    """
    if not triangles or len(surface.faces) <= triangles:
        return surface
    manifold3d = package("manifold3d")
    solid = manifold3d.Manifold(manifold3d.Mesh(surface.vertices, surface.faces.astype(np.uint32)))
    if solid.status() != manifold3d.Error.NoError:
        raise InputError("splat", "a surface that can be simplified", str(solid.status()), "set triangles to 0")
    low, high = 0.0, MOST_TOLERANCE * float(np.ptp(surface.vertices, axis=0).max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if solid.simplify(middle).num_tri() > triangles else (low, middle)
    made = solid.simplify(high).to_mesh()
    return Surface(np.asarray(made.vert_properties, dtype=np.float32), np.asarray(made.tri_verts, dtype=np.int64))
