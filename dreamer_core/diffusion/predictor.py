"""What guidance needs of a diffusion model: one noise prediction in VE form, and one differentiable encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning of B samples, as SDXL takes it: token embeddings and a pooled embedding."""

    tokens: Tensor  # [B, L, D]
    pooled: Tensor  # [B, P]

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Conditioning:
        return Conditioning(self.tokens[index], self.pooled[index])

    def expand(self, batch: int) -> Conditioning:
        """One sample's conditioning for `batch` samples."""
        if len(self) == batch:
            return self
        if len(self) != 1:
            raise ValueError(f"Conditioning.expand needs one sample, but got {len(self)}")
        return Conditioning(self.tokens.expand(batch, -1, -1), self.pooled.expand(batch, -1))

    def to(self, device: torch.device | str) -> Conditioning:
        return Conditioning(self.tokens.to(device), self.pooled.to(device))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Samples of several conditionings one after another; shorter token sequences are repeated chunk-wise.

        SDXL prompts come in chunks of 77 tokens. Cross-attention over a sequence that is repeated a whole number of
        times is unchanged, so lengths are brought to their least common multiple.
        """
        length = lcm(*(p.tokens.shape[1] for p in parts))
        tokens = [p.tokens.repeat(1, length // p.tokens.shape[1], 1) for p in parts]
        return Conditioning(torch.cat(tokens), torch.cat([p.pooled for p in parts]))


class NoisePredictor(Protocol):
    """A teacher. Adapters own parameterisation (eps, v, EDM), precision, size conditioning and micro-batching."""

    @property
    def sigmas(self) -> Tensor:  # [T] ascending, float64 on the CPU
        """sigma(t) of the discrete training timesteps 0 .. T - 1."""
        ...

    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Predicted noise [B, 4, h, w] of VE latents `x` [B, 4, h, w] at `sigma` [B]; makes no graph."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Latents [B, 4, H/8, W/8] of display images [B, H, W, 3] in [0, 1]; differentiable."""
        ...


class TextEncoder(Protocol):
    """Turns prompts into conditioning."""

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of each prompt, in order."""
        ...
