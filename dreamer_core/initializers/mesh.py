"""Points on the surface of a coloured triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .point_cloud import PointCloud

Array = NDArray[np.float64]
CHUNK = 1_000_000
"""Triangles whose areas are computed at once."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with colours: of a texture, of vertices, of faces, of all.

    Linear ones, glTF's, are multiplied as its standard says; of others the first that is there counts.
    """

    vertices: Array  # [V, 3]
    faces: NDArray[np.int64]  # [F, 3]
    texture: NDArray[np.uint8] | None = None  # [H, W, 3] display values
    uv: Array | None = None  # [V, 2] into the texture; (0, 0) is its top left corner; it repeats
    vertex_rgb: Array | None = None  # [V, 3] in [0, 1]
    face_rgb: Array | None = None  # [F, 3] in [0, 1]
    rgb: Array | None = None  # [3] in [0, 1]
    linear: bool = False
    """Whether `vertex_rgb`, `face_rgb` and `rgb` are linear, as in glTF, or display values."""

    def areas(self, transform: Array | None = None) -> Array:  # [F]
        """Area of every triangle after the affine `transform` [4, 4]; 0 where a corner is not finite."""
        corners = self.vertices if transform is None else self.vertices @ transform[:3, :3].T
        areas = np.empty(len(self.faces))
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(self.faces), CHUNK):
                a, b, c = (corners[self.faces[start : start + CHUNK, i]] for i in range(3))
                areas[start : start + CHUNK] = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
        return np.where(np.isfinite(areas), areas, 0.0)

    def sample(self, count: int, generator: torch.Generator, transform: Array | None = None) -> PointCloud:
        """`count` points, spread evenly by area: stratified over the triangles, then uniform in each."""
        areas = self.areas(transform)
        draws = torch.rand(3, count, generator=generator, dtype=torch.float64).numpy()
        edges = np.cumsum(areas)
        ticks = (np.arange(count) + draws[0]) / count * edges[-1]
        face = np.minimum(np.searchsorted(edges, ticks, side="right"), np.flatnonzero(areas)[-1])
        root = np.sqrt(draws[1])  # uniform in a triangle (Osada et al., Shape Distributions, 2002)
        weights = np.stack([1 - root, root * (1 - draws[2]), root * draws[2]], axis=1)
        points = self._blend(self.vertices, face, weights)
        if transform is not None:
            points = points @ transform[:3, :3].T + transform[:3, 3]
        rgb = self._colors(face, weights)
        return PointCloud(torch.from_numpy(points), None if rgb is None else torch.from_numpy(rgb).float())

    def _blend(self, values: Array, face: NDArray[np.int64], weights: Array) -> Array:
        return np.einsum("nk,nkc->nc", weights, values[self.faces[face]])

    def _colors(self, face: NDArray[np.int64], weights: Array) -> Array | None:
        """Display colours [n, 3] of points given by their triangle and barycentric weights."""
        found: list[Array] = []
        if self.texture is not None and self.uv is not None:
            height, width = self.texture.shape[:2]
            uv = np.nan_to_num(self._blend(self.uv, face, weights)) % 1.0
            column = np.minimum((uv[:, 0] * width).astype(np.int64), width - 1)
            row = np.minimum((uv[:, 1] * height).astype(np.int64), height - 1)
            color = self.texture[row, column] / 255.0
            found.append(to_linear(color) if self.linear else color)
        if self.vertex_rgb is not None:
            found.append(self._blend(self.vertex_rgb, face, weights))
        if self.face_rgb is not None:
            found.append(self.face_rgb[face])
        if self.rgb is not None:
            found.append(np.tile(self.rgb, (len(face), 1)))
        if not found:
            return None
        return to_display(np.prod(found, axis=0)) if self.linear else found[0]


def to_display(linear: Array) -> Array:
    """sRGB values of linear ones in [0, 1] (IEC 61966-2-1)."""
    x = np.clip(linear, 0.0, 1.0)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def to_linear(display: Array) -> Array:
    """Linear values of sRGB ones in [0, 1] (IEC 61966-2-1)."""
    x = np.clip(display, 0.0, 1.0)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
