"""Images to latents, with the way back for the gradient in one of two forms of equal result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..teachers.teacher import Teacher
from .shortage import parts

WayBack = Callable[[Tensor], Tensor]
"""Of a gradient of latents [B, C, h, w] to one of their images [B, H, W, 3]; goes once."""


class Encoder(Protocol):
    """What a teacher is to this module."""

    def encode(self, images: Tensor) -> Tensor:
        """See `Teacher`."""
        ...


def encode_both_ways(encoder: Encoder, images: Tensor) -> tuple[Tensor, WayBack]:
    """Latents of images [B, H, W, 3], without a graph, and the way back.

    An encoder in parts or in another process has its own `encode_both_ways`. It is called from outside autograd, whose
    one thread per GPU must not wait for other threads that need it.
    """
    own = getattr(encoder, "encode_both_ways", None)
    if own is not None:
        found: tuple[Tensor, WayBack] = own(images)
        return found
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        latents = encoder.encode(leaf)

    def back(gradient: Tensor) -> Tensor:
        return torch.autograd.grad(latents, leaf, gradient.to(latents))[0]  # which may be on another device

    return latents.detach(), back


class EncodedImages:
    """Latents of a batch of images, and `backward` for a gradient that becomes known later.

    With `at_once` the batch is encoded without a graph, and in `backward` once more, so many views at a time, so that
    no more than their activations are alive; the teacher runs in between with the memory free.
    """

    def __init__(self, predictor: Teacher, images: Tensor, at_once: int | None) -> None:
        self._predictor = predictor
        self._images = images  # [B, H, W, 3]
        self._at_once = at_once
        self._back: WayBack | None = None
        if at_once is not None:
            self.z = self.like(images)
        else:
            self.z, self._back = encode_both_ways(predictor, images)

    def like(self, images: Tensor) -> Tensor:
        """Latents of other images of the step [B, H, W, 3], as many at a time, without a graph."""
        with torch.no_grad():
            return torch.cat([self._predictor.encode(images.detach()[p]) for p in parts(len(images), self._at_once)])

    def backward(self, gradient: Tensor) -> None:
        """Back-propagate the latents' gradient [B, C, h, w] into the images."""
        if self._back is not None:
            self._images.backward(self._back(gradient))
            return
        found = []
        for part in parts(len(gradient), self._at_once):
            _, back = encode_both_ways(self._predictor, self._images[part])
            found.append(back(gradient[part]))
        self._images.backward(torch.cat(found))
