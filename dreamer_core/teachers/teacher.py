"""The protocol of a teacher: noise predictions in VE form, what guidance makes of two, and a differentiable encoder.

Nothing that works with teachers assumes a number of latent channels, a pooled embedding or a number of timesteps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Literal, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning of B samples: token embeddings, and a pooled embedding where the teacher takes one."""

    tokens: Tensor  # [B, L, D]
    pooled: Tensor | None = None  # [B, P]

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Conditioning:
        return self.map(lambda x: x[index])

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same of both embeddings."""
        return Conditioning(function(self.tokens), None if self.pooled is None else function(self.pooled))

    def expand(self, batch: int) -> Conditioning:
        """One sample's conditioning for `batch` samples."""
        if len(self) == batch:
            return self
        if len(self) != 1:
            raise ValueError(f"Conditioning.expand needs one sample, but got {len(self)}")
        return self.map(lambda x: x.expand(batch, *x.shape[1:]))

    def to(self, device: torch.device | str) -> Conditioning:
        return self.map(lambda x: x.to(device))

    def mixed(self, weights: Tensor) -> Conditioning:  # [C, B]
        """C weighted sums of the B samples."""
        return self.map(lambda x: torch.einsum("cb,b...->c...", weights.to(x), x))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Samples of several conditionings one after another; shorter token sequences are repeated chunk-wise.

        SDXL prompts come in chunks of 77 tokens. Cross-attention over a sequence that is repeated a whole number of
        times is unchanged, so lengths are brought to their least common multiple.
        """
        length = lcm(*(p.tokens.shape[1] for p in parts))
        tokens = [p.tokens.repeat(1, length // p.tokens.shape[1], 1) for p in parts]
        pooled = [p.pooled for p in parts if p.pooled is not None]
        if pooled and len(pooled) < len(parts):
            raise ValueError("Conditioning.cat needs pooled embeddings of all parts or of none")
        return Conditioning(torch.cat(tokens), torch.cat(pooled) if pooled else None)


Role = Literal["positive", "negative", "inversion"]
"""What a prediction is for: the prompt; what guidance leads away from; the path to x_s. The last two are unconditional
to whatever a user adds to the prompt, such as a picture."""


@dataclass(frozen=True)
class Request:
    """One noise prediction of B samples."""

    x: Tensor  # [B, C, h, w]
    """VE latents. Requests of one place share the very tensor."""
    sigma: float
    cond: Conditioning
    role: Role

    def __getitem__(self, index: slice) -> Request:
        return Request(self.x[index], self.sigma, self.cond[index], self.role)


def classifier_free(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, 2207.12598): negative + scale (positive - negative)."""
    return negative + scale * (positive - negative)


class Teacher(Protocol):
    """A teacher. Adapters own parameterisation (eps, v, EDM), precision, size conditioning and micro-batching."""

    @property
    def sigmas(self) -> Tensor:  # [T] ascending, float64 on the CPU
        """sigma(t) of the discrete training timesteps 0 .. T - 1."""
        ...

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        """Predicted noise [B, C, h, w] of every request, in order; all have the same shape. Makes no graph."""
        ...

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        """Guided noise [B, C, h, w] of two predictions at one place: `classifier_free`, or what the user put there."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Latents [B, C, h, w] of display images [B, H, W, 3] in [0, 1]; differentiable."""
        ...


class PlainTeacher(ABC):
    """A teacher to whom roles mean nothing: one batched call for all requests, and plain classifier-free guidance."""

    @abstractmethod
    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Predicted noise [B, C, h, w] of VE latents `x` [B, C, h, w] at `sigma` [B]; makes no graph."""

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        x = torch.cat([r.x for r in requests])
        sigma = torch.cat([r.x.new_full((len(r.x),), r.sigma) for r in requests])
        found = self.eps(x, sigma, Conditioning.cat([r.cond for r in requests]))
        return list(found.split([len(r.x) for r in requests]))

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        return classifier_free(e_positive, e_negative, scale)


class TextEncoder(Protocol):
    """Turns prompts into conditioning."""

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of each prompt, in order."""
        ...
