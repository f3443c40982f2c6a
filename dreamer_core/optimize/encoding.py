"""Images to latents, with the way back for the gradient in one of two forms of equal result."""

from __future__ import annotations

import torch
from torch import Tensor

from ..teachers.teacher import Teacher
from .shortage import parts


class EncodedImages:
    """Latents of a batch of images, and `backward` for a gradient that becomes known later.

    With `at_once` the batch is encoded without a graph, and in `backward` once more, so many views at a time, so that
    no more than their activations are alive; the teacher runs in between with the memory free.
    """

    def __init__(self, predictor: Teacher, images: Tensor, at_once: int | None) -> None:
        self._predictor = predictor
        self._images = images  # [B, H, W, 3]
        self._at_once = at_once
        self._latents: Tensor | None = None
        if at_once is not None:
            self.z = self.like(images)
        else:
            self._latents = predictor.encode(images)
            self.z = self._latents.detach()

    def like(self, images: Tensor) -> Tensor:
        """Latents of other images of the step [B, H, W, 3], as many at a time, without a graph."""
        with torch.no_grad():
            return torch.cat([self._predictor.encode(images.detach()[p]) for p in parts(len(images), self._at_once)])

    def backward(self, gradient: Tensor) -> None:
        """Back-propagate the latents' gradient [B, C, h, w] into the images."""
        if self._latents is not None:
            self._latents.backward(gradient)
            return
        leaf = self._images.detach().requires_grad_(True)
        for part in parts(len(leaf), self._at_once):
            self._predictor.encode(leaf[part]).backward(gradient[part])
        self._images.backward(leaf.grad)
