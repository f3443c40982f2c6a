"""A teacher that is known in closed form: it believes in one object, seen from wherever the prompt says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamer_core.cameras import Cameras
from dreamer_core.gaussians import Gaussians
from dreamer_core.guidance import GuidanceConditioning
from dreamer_core.rendering import render
from dreamer_core.teachers.noise_levels import scaled_linear_sigmas
from dreamer_core.teachers.teacher import Conditioning, PlainTeacher

POOL = 2
"""Pixels per latent along each side."""


def encode_images(images: Tensor) -> Tensor:
    """Average-pooled images [B, H, W, 3] as latents [B, 4, H / 2, W / 2]; the fourth channel is their mean."""
    x = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2), POOL)
    return 2.0 * torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1) - 1.0


def two_colour_object() -> Gaussians:
    """A red box on the right (+X), a smaller green ball on top of it towards the front: no two sides look alike."""
    g = torch.Generator().manual_seed(7)
    box = (2 * torch.rand(900, 3, generator=g) - 1) * torch.tensor([0.55, 0.3, 0.35]) + torch.tensor([0.1, -0.15, 0.0])
    ball = torch.nn.functional.normalize(torch.randn(500, 3, generator=g), dim=-1) * 0.28
    ball = ball + torch.tensor([-0.15, 0.35, 0.2])
    n, m = len(box), len(ball)
    rgb = torch.cat([torch.tensor([0.85, 0.15, 0.1]).repeat(n, 1), torch.tensor([0.1, 0.6, 0.2]).repeat(m, 1)])
    return Gaussians.from_activated(
        means=torch.cat([box, ball]),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(n + m, 1),
        scales=torch.full((n + m, 3), 0.06),
        opacities=torch.full((n + m,), 0.8),
        rgb=rgb,
    )


@dataclass
class CameraPrompts:
    """Puts the cameras into the conditioning: row 0 of every token sequence is the flattened view and intrinsics."""

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        tokens = torch.cat([cameras.viewmats.flatten(1), cameras.Ks.flatten(1)], dim=1)[:, None]
        ones = torch.ones(len(cameras), 1)
        positive = Conditioning(tokens, ones)
        empty = Conditioning(tokens, 0 * ones)
        return GuidanceConditioning(positive, empty, empty)


class AnalyticTeacher(PlainTeacher):
    """eps of the posterior mean under N(z*, spread^2), with z* the encoded view of the object (white background).

    With a text (pooled 1) it is sure (`spread`), with the empty prompt (pooled 0) it is less so (`empty_spread`).
    """

    def __init__(self, scene: Gaussians, resolution: int, spread: float = 0.1, empty_spread: float = 1.0) -> None:
        self.scene, self.resolution, self.spread, self.empty_spread = scene, resolution, spread, empty_spread
        self.sigmas = scaled_linear_sigmas()
        self.calls: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        return encode_images(images)

    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        self.calls.append(len(x))
        sure = cond.pooled[:, 0] > 0.5
        variance = torch.where(sure, self.spread**2, self.empty_spread**2)
        target = encode_images(self.views(cond.tokens[:, 0]))
        s = sigma[:, None, None, None]
        v = variance[:, None, None, None]
        return s / (v + s * s) * (x - target)

    def views(self, flat: Tensor) -> Tensor:
        n, r = len(flat), self.resolution
        zeros = torch.zeros(n)
        cameras = Cameras(flat[:, :16].reshape(n, 4, 4), flat[:, 16:].reshape(n, 3, 3), r, r, zeros, zeros, zeros)
        with torch.no_grad():
            return render(self.scene, cameras, backgrounds=torch.ones(n, 3)).colors


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]."""
    return float(-10 * torch.log10((a.clamp(0, 1) - b.clamp(0, 1)).square().mean()))


def drift(one, other):
    """Largest difference of all numbers of two parameter lists but one in a hundred.

    Adam makes a whole step of a gradient that is nothing but rounding, and a processor may round otherwise where a
    batch is cut otherwise: a few numbers may differ by a step anywhere.
    """
    pairs = [(a.detach(), b.detach()) for a, b in zip(one, other, strict=True)]
    return torch.cat([(a - b).abs().flatten() for a, b in pairs]).quantile(0.99).item()
