"""Prompts by view: which conditioning a camera gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .cameras import Cameras
from .diffusion.predictor import Conditioning, TextEncoder
from .errors import InputError
from .guidance.base import GuidanceConditioning


class PromptProcessor(Protocol):
    """Gives the three conditionings of a step for its cameras."""

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        """Conditioning of every camera, on the teacher's device."""
        ...


@dataclass(frozen=True)
class PromptConfig:
    """What the user writes. View words are appended as "{prompt}, {words}"; empty words mean the bare prompt."""

    prompt: str
    negative: str = ""
    """The unconditional side of classifier-free guidance."""
    front: str = "front view"
    side: str = "side view"
    back: str = "back view"
    overhead: str = ""
    """Blended in between elevations `overhead_from` and `overhead_to`; empty switches it off (published)."""
    overhead_from: float = 45.0
    overhead_to: float = 75.0
    inversion: str = ""
    """Prompt of the DDIM paths: empty, but encoded, in the published configuration."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError("prompt", "a description of the object", "an empty text", 'e.g. "a red mug"')
        if not self.overhead_from < self.overhead_to:
            raise InputError("prompt.overhead_from", "less than overhead_to", (self.overhead_from, self.overhead_to))

    def with_words(self, words: str) -> str:
        """The prompt of one direction."""
        return f"{self.prompt}, {words}" if words else self.prompt


@dataclass(frozen=True)
class ViewPrompts:
    """Encoded prompts, one sample each; interpolated linearly by angle (Dreamer XL's code, train.py:116)."""

    front: Conditioning
    side: Conditioning
    back: Conditioning
    overhead: Conditioning | None
    negative: Conditioning
    inversion: Conditioning
    overhead_from: float = 45.0
    overhead_to: float = 75.0

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        """Azimuth 0 is front, +-90 side, 180 back, with both embeddings interpolated in between."""
        views = [self.front, self.side, self.back]
        weights = view_weights(cameras.azimuth)
        if self.overhead is not None:
            views.append(self.overhead)
            share = (cameras.elevation - self.overhead_from) / (self.overhead_to - self.overhead_from)
            over = share.clamp(0.0, 1.0)[:, None]
            weights = torch.cat([weights * (1.0 - over), over], dim=1)
        stacked = Conditioning.cat(views)
        w = weights.to(stacked.tokens)
        positive = Conditioning(
            torch.einsum("bv,vld->bld", w, stacked.tokens), torch.einsum("bv,vp->bp", w, stacked.pooled)
        )
        batch = len(cameras)
        return GuidanceConditioning(positive, self.negative.expand(batch), self.inversion.expand(batch))


def view_weights(azimuth: Tensor) -> Tensor:
    """Weights [C, 3] of front, side, back for azimuths [C] in degrees; every row sums to 1."""
    turn = azimuth.abs() / 90.0
    front, back = (1.0 - turn).clamp_min(0.0), (turn - 1.0).clamp_min(0.0)
    return torch.stack([front, 1.0 - front - back, back], dim=1)


def encode_prompts(encoder: TextEncoder, config: PromptConfig) -> ViewPrompts:
    """All prompts of a run, encoded in one call."""
    texts = [config.with_words(words) for words in (config.front, config.side, config.back)]
    texts += [config.negative, config.inversion]
    if config.overhead:
        texts.append(config.with_words(config.overhead))
    encoded = encoder.encode_text(texts)
    rows = [encoded[i : i + 1] for i in range(len(texts))]
    return ViewPrompts(
        front=rows[0],
        side=rows[1],
        back=rows[2],
        overhead=rows[5] if config.overhead else None,
        negative=rows[3],
        inversion=rows[4],
        overhead_from=config.overhead_from,
        overhead_to=config.overhead_to,
    )
