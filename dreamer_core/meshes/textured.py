"""The finished mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Faces = NDArray[np.int64]


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles with one texture. Vertices on seams of the texture are there once for each side."""

    vertices: Floats  # [V, 3] in metres, Y up, front +Z
    normals: Floats  # [V, 3] unit length
    uv: Floats  # [V, 2] in [0, 1]; (0, 0) is the picture's top left corner, as in glTF
    faces: Faces  # [F, 3] counter-clockwise from outside
    texture: NDArray[np.uint8]  # [H, W, 3] display values
    watertight: bool
    """Whether every edge of the surface joins two triangles, seams apart."""

    def described(self) -> str:
        """Facts in a line: triangles, size in metres, texture, whether it is closed."""
        width, height, depth = (float(side) for side in np.ptp(self.vertices, axis=0))
        closed = "watertight" if self.watertight else "not watertight"
        sides = f"{width:.3g} x {height:.3g} x {depth:.3g} m"
        return f"{len(self.faces):,} triangles, {sides}, texture {self.texture.shape[0]} px, {closed}"
