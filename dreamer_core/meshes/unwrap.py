"""Lays a surface out flat for its texture, by xatlas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .packages import package
from .surface import Surface
from .textured import Faces, Floats

PADDING = 4
"""Pixels between charts, so that smaller copies of the texture do not mix neighbours."""


_kept: Any = None
"""The last atlas. xatlas waits for its threads when one ends, and may wait for ever where they have just begun to
sleep, with Python's lock held."""


@dataclass(frozen=True)
class Layout:
    """The surface's vertices, once for each chart they lie in, and where they lie in the texture."""

    source: Faces  # [V'] the surface's vertex
    faces: Faces  # [F, 3]
    uv: Floats  # [V', 2] in [0, 1] from the top left corner


def unwrap(surface: Surface, normals: Floats, pixels: int) -> Layout:
    """Charts of a surface with vertex normals [V, 3], packed into a square texture of `pixels` per side."""
    xatlas = package("xatlas")
    global _kept
    _kept = atlas = xatlas.Atlas()  # the one before ends here, its threads long asleep
    atlas.add_mesh(surface.vertices, surface.faces.astype(np.uint32), normals)
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = pixels, PADDING, True
    atlas.generate(xatlas.ChartOptions(), packing)
    source, faces, uv = atlas[0]
    # xatlas divides by the width and the height it took; one divisor keeps pixels square.
    side = max(atlas.width, atlas.height)
    scaled = uv * np.array([atlas.width, atlas.height], dtype=np.float32) / side
    return Layout(source.astype(np.int64), faces.astype(np.int64), scaled.astype(np.float32))
