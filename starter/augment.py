"""Images that are not clean renders: what a splat looks like before it is finished."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images [B, 3, H, W]; sigma in pixels."""
    reach = max(1, int(2.5 * sigma + 0.5))
    x = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    images = F.pad(images, (reach,) * 4, mode="replicate")
    images = F.conv2d(images, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(images, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def splat_noise(count: int, size: int, generator: torch.Generator, blobs: int = 24) -> tuple[Tensor, Tensor]:
    """Random soft coloured ellipses: premultiplied colour [B, 3, H, W] and coverage [B, 1, H, W]."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    colour, through = torch.zeros(count, 3, size, size), torch.ones(count, 1, size, size)
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    base = uniform(count, 3)
    for _ in range(blobs):
        cx, cy = (1.6 * uniform(2, count, 1, 1) - 0.8).unbind(0)
        angle = 3.1416 * uniform(count, 1, 1)
        wide, thin = torch.exp(-3.2 + 2.4 * uniform(2, count, 1, 1)).unbind(0)
        dx, dy = xs - cx, ys - cy
        u, v = angle.cos() * dx + angle.sin() * dy, angle.cos() * dy - angle.sin() * dx
        alpha = uniform(count, 1, 1) * torch.exp(-0.5 * ((u / wide) ** 2 + (v / thin) ** 2))
        tint = (base + 0.5 * (uniform(count, 3) - 0.5)).clamp(0, 1)
        colour = colour + (through * alpha[:, None]) * tint[:, :, None, None]
        through = through * (1 - alpha[:, None])
    return colour, 1 - through


def roughen(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch [B, 3, H, W] in [0, 1] of which about half is blurred, mixed, recoloured, noisy or covered in blobs."""
    count, size = len(images), images.shape[-1]
    kind = torch.rand(count, generator=generator)
    out = images.clone()

    def chosen(low: float, high: float) -> Tensor:
        return ((kind >= low) & (kind < high)).nonzero()[:, 0]

    index = chosen(0.0, 0.16)
    if len(index):
        sigma = 0.5 + 2.5 * float(torch.rand(1, generator=generator))
        out[index] = blur(out[index], sigma)
    index = chosen(0.12, 0.28)
    if len(index):
        mix = torch.rand(len(index), 1, 1, 1, generator=generator)
        other = torch.randint(count, (len(index),), generator=generator)
        out[index] = mix * out[index] + (1 - mix) * images[other]
    index = chosen(0.24, 0.40)
    if len(index):
        gain = 0.5 + torch.rand(len(index), 3, 1, 1, generator=generator)
        shift = 0.3 * (torch.rand(len(index), 3, 1, 1, generator=generator) - 0.5)
        out[index] = out[index] * gain + shift
    index = chosen(0.36, 0.48)
    if len(index):
        amount = 0.1 * torch.rand(len(index), 1, 1, 1, generator=generator)
        out[index] = out[index] + amount * torch.randn(len(index), 3, size, size, generator=generator)
    index = chosen(0.44, 0.58)
    if len(index):
        colour, cover = splat_noise(len(index), size, generator)
        keep = (torch.rand(len(index), 1, 1, 1, generator=generator) < 0.5).float()
        under = keep * out[index] + (1 - keep) * torch.rand(len(index), 3, 1, 1, generator=generator)
        out[index] = colour + (1 - cover) * under
    return out.clamp(0, 1)
