"""Prompts by view: which conditioning a camera gets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .cameras import Cameras
from .diffusion.predictor import Conditioning, TextEncoder
from .errors import InputError
from .guidance.base import GuidanceConditioning, WeightedNegative


class PromptProcessor(Protocol):
    """Gives the three conditionings of a step for its cameras."""

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        """Conditioning of every camera, on the teacher's device."""
        ...


@dataclass(frozen=True)
class PerpNeg:
    """Strength of the negatives by direction (Dreamer XL's options)."""

    weight: float = -2.0
    """Of a direction that is out of sight; 0 or below."""
    front_decay: float = 2.0
    """How fast the front's weight falls as it comes into view: exp(-front_decay * its share of the prompt)."""
    side_decay: float = 10.0
    """The same of the side, with the share of the other direction."""

    def __post_init__(self) -> None:
        if not -math.inf < self.weight <= 0:
            raise InputError("perp_neg_weights.weight", "a finite number of 0 or below", self.weight, "try -2")
        for name in ("front_decay", "side_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"perp_neg_weights.{name}", "a finite number of 0 or more", getattr(self, name))


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
    perp_neg: bool = False
    """Also steer away from the other directions, perpendicular to the prompt (Perp-Neg, 2304.04968)."""
    perp_neg_weights: PerpNeg = field(default_factory=PerpNeg)
    artefacts: str = ""
    """Words for artefacts, appended to the prompt as the source of SDS-Bridge."""

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
    perp_neg: PerpNeg | None = None
    artefact: Conditioning | None = None

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
        return GuidanceConditioning(
            positive,
            self.negative.expand(batch),
            self.inversion.expand(batch),
            perpendicular=self._perpendicular(cameras.azimuth),
            artefact=None if self.artefact is None else self.artefact.expand(batch),
        )

    def _perpendicular(self, azimuth: Tensor) -> tuple[WeightedNegative, ...]:
        if self.perp_neg is None:
            return ()
        weights = perp_neg_weights(azimuth, self.perp_neg).unbind(dim=1)
        prompts = (self.front, self.side)
        return tuple(
            WeightedNegative(prompt.expand(len(azimuth)), weight)
            for prompt, weight in zip(prompts, weights)
            if bool((weight != 0).any())
        )


def view_weights(azimuth: Tensor) -> Tensor:
    """Weights [C, 3] of front, side, back for azimuths [C] in degrees; every row sums to 1."""
    turn = azimuth.abs() / 90.0
    front, back = (1.0 - turn).clamp_min(0.0), (turn - 1.0).clamp_min(0.0)
    return torch.stack([front, 1.0 - front - back, back], dim=1)


def perp_neg_weights(azimuth: Tensor, config: PerpNeg) -> Tensor:
    """Weights [C, 2] of the front and the side prompt as negatives, for azimuths [C] in degrees (2304.04968, sec. 5).

    Within 90 degrees of the front both fade with their share of the positive prompt, and vanish where it is near them;
    behind that the front is avoided in full.
    """
    turn = azimuth.abs() / 90.0
    near, far = (1.0 - turn).clamp(0.0, 1.0), (2.0 - turn).clamp(0.0, 1.0)  # share of the front; of the side
    front = torch.where(near > 0.8, 0.0, config.weight * torch.exp(-config.front_decay * near))
    side = torch.where(near < 0.2, 0.0, config.weight * torch.exp(-config.side_decay * (1.0 - near)))
    side_behind = torch.where(far > 0.8, 0.0, config.weight / 2 * torch.exp(-config.side_decay * far))
    behind = turn >= 1.0
    return torch.stack([torch.where(behind, config.weight, front), torch.where(behind, side_behind, side)], dim=1)


def encode_prompts(encoder: TextEncoder, config: PromptConfig) -> ViewPrompts:
    """All prompts of a run, encoded in one call."""
    texts = [config.with_words(words) for words in (config.front, config.side, config.back)]
    texts += [config.negative, config.inversion]
    texts += [config.with_words(words) for words in (config.overhead, config.artefacts) if words]
    encoded = encoder.encode_text(texts)
    rows = [encoded[i : i + 1] for i in range(len(texts))]
    return ViewPrompts(
        front=rows[0],
        side=rows[1],
        back=rows[2],
        overhead=rows[5] if config.overhead else None,
        perp_neg=config.perp_neg_weights if config.perp_neg else None,
        artefact=rows[-1] if config.artefacts else None,
        negative=rows[3],
        inversion=rows[4],
        overhead_from=config.overhead_from,
        overhead_to=config.overhead_to,
    )
