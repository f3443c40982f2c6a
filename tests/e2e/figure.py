"""A toy with a top, a front and a right side: a white post, a red ball on it, a blue nose in front, a green arm."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamer_core.gaussians import Gaussians

BALLS = (  # centre in our world (Y up, front +Z), half axes, colour
    ((0.0, -0.35, 0.0), (0.22, 0.5, 0.22), (0.92, 0.9, 0.85)),
    ((0.0, 0.4, 0.0), (0.5, 0.34, 0.5), (0.85, 0.12, 0.1)),
    ((0.0, -0.1, 0.3), (0.13, 0.13, 0.16), (0.1, 0.25, 0.9)),
    ((0.5, -0.3, 0.0), (0.35, 0.09, 0.09), (0.1, 0.7, 0.2)),
)


def figure(count: int = 6000, seed: int = 0) -> Gaussians:
    """`count` Gaussians on the surfaces of its four ellipsoids, shaded from above."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, Tensor]] = []
    sizes = [axes[0] * axes[1] + axes[1] * axes[2] for _, axes, _ in BALLS]
    for (center, axes, color), size in zip(BALLS, sizes):
        normals = torch.nn.functional.normalize(
            torch.randn(int(count * size / sum(sizes)), 3, generator=generator), dim=-1
        )
        light = 0.65 + 0.35 * normals @ torch.tensor([0.3, 0.8, 0.5])
        parts.append((torch.tensor(center) + normals * torch.tensor(axes), torch.tensor(color) * light[:, None]))
    means, rgb = (torch.cat(found) for found in zip(*parts))
    n = len(means)
    return Gaussians.from_activated(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
        scales=torch.full((n, 3), 0.022),
        opacities=torch.full((n,), 0.95),
        rgb=rgb.clamp(0, 1),
    )
