"""Images to latents, with the way back for the gradient in one of two forms of equal result."""

from __future__ import annotations

import torch
from torch import Tensor

from ..teachers.teacher import Teacher


class EncodedImages:
    """Latents of a batch of images, and `backward` for a gradient that becomes known later.

    With `recompute` the batch is encoded without a graph, and in `backward` once more view by view, so that no more
    than one view's activations are alive; the teacher runs in between with the memory free.
    """

    def __init__(self, predictor: Teacher, images: Tensor, *, recompute: bool) -> None:
        self._predictor = predictor
        self._images = images  # [B, H, W, 3]
        self._latents: Tensor | None = None
        if recompute:
            with torch.no_grad():
                self.z = torch.cat([predictor.encode(image[None]) for image in images.detach()])
        else:
            self._latents = predictor.encode(images)
            self.z = self._latents.detach()

    def backward(self, gradient: Tensor) -> None:
        """Back-propagate the latents' gradient [B, C, h, w] into the images."""
        if self._latents is not None:
            self._latents.backward(gradient)
            return
        leaf = self._images.detach().requires_grad_(True)
        for i in range(leaf.shape[0]):
            self._predictor.encode(leaf[i : i + 1]).backward(gradient[i : i + 1])
        self._images.backward(leaf.grad)
