"""Points on the surface of a coloured triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .point_cloud import PointCloud

Array = NDArray[np.float64]
Wrap = Literal["repeat", "mirror", "clamp"]
"""What lies beyond the edge of a texture."""
CHUNK = 1_000_000
"""Triangles whose areas are computed at once."""
PILOT = 4_096
"""Points by which the visible share of a mesh with holes is measured."""
ROUNDS = 64
"""So often points are drawn anew where a mesh is invisible, before it stays with fewer."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with colours: of a texture, of vertices, of faces, of all.

    Linear ones, glTF's, are multiplied as its standard says; of others the first that is there counts.
    """

    vertices: Array  # [V, 3]
    faces: NDArray[np.int64]  # [F, 3]
    texture: NDArray[np.uint8] | None = None  # [H, W, 3 or 4] display values
    uv: Array | None = None  # [V, 2] into the texture; (0, 0) is its top left corner
    vertex_rgb: Array | None = None  # [V, 3] in [0, 1]
    face_rgb: Array | None = None  # [F, 3] in [0, 1]
    rgb: Array | None = None  # [3] in [0, 1]
    linear: bool = False
    """Whether `vertex_rgb`, `face_rgb` and `rgb` are linear, as in glTF, or display values."""
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    """Of the texture, across and down."""
    alpha: Literal["opaque", "mask", "blend"] = "opaque"
    """What transparency does: nothing, holes below `cutoff`, or fewer points."""
    cutoff: float = 0.5
    opacity: float = 1.0
    vertex_alpha: Array | None = None  # [V]

    def areas(self, transform: Array | None = None) -> Array:  # [F]
        """Area of every triangle after the affine `transform` [4, 4]; 0 where a corner is not finite."""
        corners = self.vertices if transform is None else self.vertices @ transform[:3, :3].T
        areas = np.empty(len(self.faces))
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(self.faces), CHUNK):
                a, b, c = (corners[self.faces[start : start + CHUNK, i]] for i in range(3))
                areas[start : start + CHUNK] = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
        return np.where(np.isfinite(areas), areas, 0.0)

    def visible(self) -> float:
        """The share of its surface that is seen: what holes and transparency leave."""
        if self.alpha == "opaque" or not self.areas().sum() > 0:
            return 1.0
        generator = torch.Generator().manual_seed(0)
        face, weights = self._places(PILOT, generator, self.areas())
        return float(self._seen(face, weights).mean())

    def sample(self, count: int, generator: torch.Generator, transform: Array | None = None) -> PointCloud:
        """`count` points, spread evenly by area: stratified over the triangles, then uniform in each.

        Where the mesh is transparent there are none, or fewer; fewer than `count` altogether where almost all of it is.
        """
        areas = self.areas(transform)
        face, weights = self._places(count, generator, areas)
        if self.alpha != "opaque":
            face, weights = self._solid(face, weights, count, generator, areas)
        points = self._blend(self.vertices, face, weights)
        if transform is not None:
            points = points @ transform[:3, :3].T + transform[:3, 3]
        rgb = self._colors(face, weights)
        return PointCloud(torch.from_numpy(points), None if rgb is None else torch.from_numpy(rgb).float())

    def _places(self, count: int, generator: torch.Generator, areas: Array) -> tuple[NDArray[np.int64], Array]:
        """Triangles [n] and barycentric weights [n, 3] of points that are spread evenly by area."""
        draws = torch.rand(3, count, generator=generator, dtype=torch.float64).numpy()
        edges = np.cumsum(areas)
        ticks = (np.arange(count) + draws[0]) / count * edges[-1]
        face = np.minimum(np.searchsorted(edges, ticks, side="right"), np.flatnonzero(areas)[-1])
        root = np.sqrt(draws[1])  # uniform in a triangle (Osada et al., Shape Distributions, 2002)
        return face, np.stack([1 - root, root * (1 - draws[2]), root * draws[2]], axis=1)

    def _solid(
        self, face: NDArray[np.int64], weights: Array, count: int, generator: torch.Generator, areas: Array
    ) -> tuple[NDArray[np.int64], Array]:
        """The places that are seen, and new ones for those that are not, until there are `count`."""
        faces, all_weights, there = [], [], 0
        for _ in range(ROUNDS):
            chance = torch.rand(len(face), generator=generator, dtype=torch.float64).numpy()
            seen = self._seen(face, weights) > chance
            faces.append(face[seen])
            all_weights.append(weights[seen])
            there += int(seen.sum())
            if there >= count:
                break
            face, weights = self._places(max(count - there, PILOT), generator, areas)
        chosen = torch.randperm(there, generator=generator)[:count].sort().values.numpy()
        return np.concatenate(faces)[chosen], np.concatenate(all_weights)[chosen]

    def _seen(self, face: NDArray[np.int64], weights: Array) -> Array:  # [n] in [0, 1]
        """How opaque the surface is at these places; with a mask all or nothing."""
        alpha = np.full(len(face), self.opacity)
        if self.vertex_alpha is not None:
            alpha = alpha * self._blend(self.vertex_alpha[:, None], face, weights)[:, 0]
        texels = self._texels(face, weights)
        if texels is not None and texels.shape[1] == 4:
            alpha = alpha * texels[:, 3] / 255.0
        return (alpha >= self.cutoff).astype(np.float64) if self.alpha == "mask" else np.clip(alpha, 0.0, 1.0)

    def _blend(self, values: Array, face: NDArray[np.int64], weights: Array) -> Array:
        return np.einsum("nk,nkc->nc", weights, values[self.faces[face]])

    def _texels(self, face: NDArray[np.int64], weights: Array) -> NDArray[np.uint8] | None:  # [n, 3 or 4]
        if self.texture is None or self.uv is None:
            return None
        uv = np.nan_to_num(self._blend(self.uv, face, weights))
        row, column = (_texel(uv[:, i], self.texture.shape[1 - i], self.wrap[i]) for i in (1, 0))
        return np.asarray(self.texture[row, column])

    def _colors(self, face: NDArray[np.int64], weights: Array) -> Array | None:
        """Display colours [n, 3] of points given by their triangle and barycentric weights."""
        found: list[Array] = []
        texels = self._texels(face, weights)
        if texels is not None:
            color = texels[:, :3] / 255.0
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


def _texel(at: Array, size: int, wrap: Wrap) -> NDArray[np.int64]:
    """Rows or columns of a texture of `size` for coordinates of which 1 is its edge."""
    if wrap == "clamp":
        at = np.clip(at, 0.0, 1.0)
    elif wrap == "mirror":
        at = 1.0 - np.abs(at % 2.0 - 1.0)
    else:
        at = at % 1.0
    return np.minimum((at * size).astype(np.int64), size - 1)


def to_display(linear: Array) -> Array:
    """sRGB values of linear ones in [0, 1] (IEC 61966-2-1)."""
    x = np.clip(linear, 0.0, 1.0)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def to_linear(display: Array) -> Array:
    """Linear values of sRGB ones in [0, 1] (IEC 61966-2-1)."""
    x = np.clip(display, 0.0, 1.0)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
