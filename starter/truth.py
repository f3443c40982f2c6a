"""How near an object comes to the world's own: silhouettes, colours and structure from all around."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dreamer_core.cameras import Cameras, turntable

from .world import COLOURS, PATTERNS, SECOND, Subject, colourise, render_layers

VIEWS = 24
RESOLUTION = 128
ELEVATION = 15.0


def cameras(views: int = VIEWS, resolution: int = RESOLUTION) -> Cameras:
    """All around, as far away and as wide as the training cameras are in the mean."""
    return turntable(views, resolution, elevation=ELEVATION, radius=3.6, fov=0.61)


@cache
def _layers(kind: str) -> Tensor:
    return render_layers(kind, cameras())


def true_pictures(subject: Subject) -> tuple[Tensor, Tensor]:
    """Pictures [VIEWS, H, W, 3] of the world's own object on white, and its coverage [VIEWS, H, W]."""
    layers = _layers(subject.kind)
    first, second = (torch.tensor(table[subject.colour]).expand(VIEWS, 3) for table in (COLOURS, SECOND))
    pattern = torch.full((VIEWS,), PATTERNS.index(subject.pattern))
    return colourise(layers, pattern, first, second, torch.ones(VIEWS, 3)), 1 - layers[..., 6]


@dataclass(frozen=True)
class Nearness:
    """Of an object to the true one; means over the views unless they say otherwise."""

    iou: float
    """Intersection over union of the silhouettes (coverage above one half)."""
    iou_worst: float
    """Of the worst view."""
    psnr: float
    """dB, over the pixels that either object covers; what one of them misses counts."""
    ssim: float
    """Structural similarity (Wang et al. 2004, Gaussian window of 11 pixels, sigma 1.5), over the same pixels."""
    turned_iou: float
    """The best mean IoU of all turns of the whole object about its axis, in steps of 15 degrees."""
    turn: int
    """Degrees of that turn; other than 0 the object looks another way."""


def nearness(pictures: Tensor, coverage: Tensor, subject: Subject) -> Nearness:
    """Of pictures [VIEWS, H, W, 3] on white and their coverage [VIEWS, H, W], from `cameras()`."""
    true, true_coverage = true_pictures(subject)
    seen, there = coverage > 0.5, true_coverage > 0.5
    either = seen | there
    iou = _iou(seen, there)
    turns = torch.stack([_iou(seen.roll(shift, 0), there).mean() for shift in range(VIEWS)])
    best = int(turns.argmax())
    squares = (pictures - true).square().mean(-1)
    errors = (squares * either).sum((1, 2)) / either.sum((1, 2)).clamp_min(1)
    _, similar = structural_similarity_index_measure(
        pictures.permute(0, 3, 1, 2), true.permute(0, 3, 1, 2), data_range=1.0, return_full_image=True
    )
    similar = (similar.mean(1) * either).sum((1, 2)) / either.sum((1, 2)).clamp_min(1)
    return Nearness(
        iou=iou.mean().item(),
        iou_worst=iou.min().item(),
        psnr=(-10 * errors.clamp_min(1e-10).log10()).mean().item(),
        ssim=similar.mean().item(),
        turned_iou=turns[best].item(),
        turn=best * 360 // VIEWS,
    )


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """[VIEWS] of masks [VIEWS, H, W]."""
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp_min(1)


def front_at(pictures: Tensor, subject: Subject) -> int:
    """Degrees in (-180, 180] of the view, of pictures [VIEWS, H, W, 3] on white, that is nearest to the true front.

    Beyond 60 to either side the object has its front, or a second one, in the wrong place.
    """
    true, _ = true_pictures(subject)
    azimuths = cameras().azimuth
    front = true[int(((azimuths + 180) % 360 - 180).abs().argmin())]
    nearest = int((pictures - front).square().mean((1, 2, 3)).argmin())
    return round((float(azimuths[nearest]) + 179) % 360 - 179)
