"""Sharpness: what blur lowers, though A-LPIPS rewards it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .measure import Measure
from .views import Views

SIZE = 256
"""Pixels per side to which pictures are scaled, for a Laplacian depends on them."""
MARGIN = 9
"""Pixels of the neighbourhood that must be covered, so that the silhouette's own edge does not count."""


def sharpness(views: Views) -> Measure:
    """RMS of the Laplacian of brightness inside the silhouette, mean over the views that show anything.

    Noise raises it as well as detail: it tells blur, nothing else.
    """
    found = [_of_view(image, cover) for image, cover in zip(views.images, views.coverage)]
    values = [value for value in found if value is not None]
    protocol = f"RMS Laplacian of brightness inside the silhouette at {SIZE} px; {views.protocol}"
    return Measure("sharpness", sum(values) / len(values) if values else 0.0, protocol)


def _of_view(image: Tensor, cover: Tensor) -> float | None:
    """Of one view [H, W, 3] with its coverage [H, W]; None where nothing is inside."""
    grey = F.interpolate(image.mean(-1)[None, None], (SIZE, SIZE), mode="bilinear", antialias=True)
    solid = F.interpolate(cover[None, None], (SIZE, SIZE), mode="bilinear", antialias=True) > 0.5
    inside = F.max_pool2d((~solid).float(), MARGIN, stride=1, padding=MARGIN // 2)[0, 0] == 0
    kernel = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    laplacian = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel)[0, 0]
    if not bool(inside.any()):
        return None
    return float(torch.sqrt(laplacian[inside].square().mean()))
