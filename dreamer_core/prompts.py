"""Prompts by view: which conditioning a camera gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol

import torch
from torch import Tensor

from .cameras import Cameras
from .errors import InputError
from .guidance.base import GuidanceConditioning, WeightedNegative
from .guidance.method import Method
from .settings import Knob, Settings
from .teachers.teacher import Conditioning, TextEncoder


class PromptProcessor(Protocol):
    """Gives the three conditionings of a step for its cameras."""

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        """Conditioning of every camera, on the teacher's device."""
        ...


@dataclass(frozen=True)
class PromptConfig(Settings):
    """What the user writes. View words are appended as "{prompt}, {words}"; empty words mean the bare prompt."""

    group: ClassVar[str] = "prompt"

    prompt: Annotated[
        str,
        Knob(
            "One object in plain words, without a place or a camera: 'a red mug'. Weights such as (red:1.2) and "
            "embeddings work.",
            multiline=True,
        ),
    ] = "a red mug"
    negative: Annotated[
        str,
        Knob("What to avoid, e.g. 'blurry, low quality'.", flag=True, multiline=True, advanced=True),
    ] = ""
    """The unconditional side of classifier-free guidance."""
    front: Annotated[
        str, Knob("Added for cameras in front (azimuth 0 degrees). Empty adds nothing.", advanced=True)
    ] = "front view"
    side: Annotated[str, Knob("Added for cameras at the sides (azimuth 90 and -90 degrees).", advanced=True)] = (
        "side view"
    )
    back: Annotated[str, Knob("Added for cameras behind (azimuth 180 degrees).", advanced=True)] = "back view"
    overhead: Annotated[
        str, Knob("Added for cameras above, e.g. 'overhead view'. Empty switches it off (published).", advanced=True)
    ] = ""
    inversion: Annotated[
        str, Knob("Prompt of the DDIM paths. Empty, as published, is right nearly always.", advanced=True)
    ] = ""
    overhead_from: Annotated[
        float,
        Knob(
            "Elevation in degrees where the overhead prompt begins to blend in. Good: 30 to 60.",
            -90.0,
            90.0,
            1.0,
            advanced=True,
        ),
    ] = 45.0
    overhead_to: Annotated[
        float,
        Knob(
            "Elevation in degrees from which only the overhead prompt counts. Good: 60 to 90.",
            -90.0,
            90.0,
            1.0,
            advanced=True,
        ),
    ] = 75.0
    perp_neg: Annotated[
        bool,
        Knob(
            "Also avoids the other directions (Perp-Neg, 2304.04968), against several faces. Up to two more network "
            "evaluations per view.",
            label="avoid other sides",
            advanced=True,
            flag=True,
        ),
    ] = False
    perp_neg_weight: Annotated[
        float,
        Knob(
            "How strongly other sides are avoided. Published: -2. Good: -4 to -0.5.",
            -20.0,
            0.0,
            0.1,
            advanced=True,
            was="prompt.perp_neg_weights.weight",
        ),
    ] = -2.0
    perp_neg_front_decay: Annotated[
        float,
        Knob(
            "How fast the front stops being avoided as it comes into view (unitless). Published: 2. Good: 1 to 5.",
            0.0,
            100.0,
            0.1,
            advanced=True,
            was="prompt.perp_neg_weights.front_decay",
        ),
    ] = 2.0
    """The front's weight falls as exp(-perp_neg_front_decay * its share of the prompt)."""
    perp_neg_side_decay: Annotated[
        float,
        Knob(
            "How fast the sides stop being avoided as they come into view (unitless). Published: 10. Good: 5 to 20.",
            0.0,
            100.0,
            0.1,
            advanced=True,
            was="prompt.perp_neg_weights.side_decay",
        ),
    ] = 10.0
    """The same of the side, with the share of the other direction."""
    artefacts: Annotated[
        str,
        Knob(
            "For the method sds_bridge: faults to move away from, e.g. 'oversaturated, blurry'.",
            advanced=True,
            flag=True,
        ),
    ] = ""
    """Appended to the prompt as the source of SDS-Bridge."""
    left: Annotated[
        str,
        Knob(
            "Added in place of side for cameras at the object's own left (azimuth 90 degrees), e.g. 'left side view'. "
            "Empty: as side.",
            advanced=True,
        ),
    ] = ""
    right: Annotated[
        str,
        Knob(
            "Added in place of side for cameras at the object's own right (azimuth -90 degrees), e.g. 'right side "
            "view'. Empty: as side.",
            advanced=True,
        ),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise InputError("prompt", "a description of the object", "an empty text", 'e.g. "a red mug"')
        if not self.overhead_from < self.overhead_to:
            raise InputError("prompt.overhead_from", "less than overhead_to", (self.overhead_from, self.overhead_to))

    def with_words(self, words: str) -> str:
        """The prompt of one direction."""
        return f"{self.prompt}, {words}" if words else self.prompt


def unread_words(config: PromptConfig, method: Method, artefacts: bool) -> dict[str, str]:
    """Settings of prompts that differ from the usual and have no effect, by dotted name -> why.

    `artefacts`: whether there are words for them.
    """
    why: dict[str, str] = {}
    if not config.perp_neg:
        numbers = ("perp_neg_weight", "perp_neg_front_decay", "perp_neg_side_decay")
        changed = (name for name in numbers if getattr(config, name) != getattr(PromptConfig, name))
        why |= dict.fromkeys((f"prompt.{name}" for name in changed), "prompt.perp_neg is false")
    if artefacts and not method.needs_artefacts:
        why["prompt.artefacts"] = f"{method.name} does not read it"
    return why


@dataclass(frozen=True)
class ViewPrompts:
    """Encoded prompts, one sample each; interpolated linearly by angle (Dreamer XL's code, train.py:116)."""

    front: Conditioning
    side: Conditioning
    back: Conditioning
    overhead: Conditioning | None
    negative: Conditioning
    inversion: Conditioning
    artefact: Conditioning | None = None
    left: Conditioning | None = None
    """Of the object's own left, azimuth 90; None: as the side."""
    right: Conditioning | None = None
    blending: PromptConfig = field(default_factory=PromptConfig)
    """Of which the numbers count here: where the overhead prompt blends in, and Perp-Neg."""

    @property
    def directions(self) -> dict[str, Conditioning]:
        """By name: front, side and back; or front, left, back and right, where the sides are told apart."""
        if self.left is None and self.right is None:
            return {"front": self.front, "side": self.side, "back": self.back}
        left, right = self.left or self.side, self.right or self.side
        return {"front": self.front, "left": left, "back": self.back, "right": right}

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        """Azimuth 0 is front, 90 left, -90 right, 180 back, with two embeddings interpolated in between."""
        views = list(self.directions.values())
        weights = view_weights(cameras.azimuth, sided=len(views) > 3)
        if self.overhead is not None:
            views.append(self.overhead)
            begin, end = self.blending.overhead_from, self.blending.overhead_to
            share = (cameras.elevation - begin) / (end - begin)
            over = share.clamp(0.0, 1.0)[:, None]
            weights = torch.cat([weights * (1.0 - over), over], dim=1)
        positive = Conditioning.cat(views).mixed(weights)
        batch = len(cameras)
        return GuidanceConditioning(
            positive,
            self.negative.expand(batch),
            self.inversion.expand(batch),
            perpendicular=self._perpendicular(cameras.azimuth),
            artefact=None if self.artefact is None else self.artefact.expand(batch),
        )

    def _perpendicular(self, azimuth: Tensor) -> tuple[WeightedNegative, ...]:
        if not self.blending.perp_neg:
            return ()
        weights = perp_neg_weights(azimuth, self.blending).unbind(dim=1)
        prompts = (self.front.expand(len(azimuth)), self._side_at(azimuth))
        return tuple(
            WeightedNegative(prompt, weight) for prompt, weight in zip(prompts, weights) if bool((weight != 0).any())
        )

    def _side_at(self, azimuth: Tensor) -> Conditioning:
        """The side that each camera is nearer to."""
        if self.left is None and self.right is None:
            return self.side.expand(len(azimuth))
        sides = Conditioning.cat([self.left or self.side, self.right or self.side])
        return sides.mixed(torch.stack([azimuth > 0, azimuth <= 0], dim=1).float())


def view_weights(azimuth: Tensor, sided: bool = False) -> Tensor:
    """Weights [C, 3] of front, side, back for azimuths [C] in degrees; every row sums to 1.

    `sided`: [C, 4] of front, left, back, right.
    """
    turn = azimuth.abs() / 90.0
    front, back = (1.0 - turn).clamp_min(0.0), (turn - 1.0).clamp_min(0.0)
    side = 1.0 - front - back
    if not sided:
        return torch.stack([front, side, back], dim=1)
    left = torch.where(azimuth > 0, side, 0.0)
    return torch.stack([front, left, back, side - left], dim=1)


def perp_neg_weights(azimuth: Tensor, config: PromptConfig) -> Tensor:
    """Weights [C, 2] of the front and the side prompt as negatives, for azimuths [C] in degrees (2304.04968, sec. 5).

    Within 90 degrees of the front both fade with their share of the positive prompt, and vanish where it is near them;
    behind that the front is avoided in full.
    """
    turn = azimuth.abs() / 90.0
    near, far = (1.0 - turn).clamp(0.0, 1.0), (2.0 - turn).clamp(0.0, 1.0)  # share of the front; of the side
    weight, front_decay, side_decay = config.perp_neg_weight, config.perp_neg_front_decay, config.perp_neg_side_decay
    front = torch.where(near > 0.8, 0.0, weight * torch.exp(-front_decay * near))
    side = torch.where(near < 0.2, 0.0, weight * torch.exp(-side_decay * (1.0 - near)))
    side_behind = torch.where(far > 0.8, 0.0, weight / 2 * torch.exp(-side_decay * far))
    behind = turn >= 1.0
    return torch.stack([torch.where(behind, weight, front), torch.where(behind, side_behind, side)], dim=1)


def encode_prompts(encoder: TextEncoder, config: PromptConfig) -> ViewPrompts:
    """All prompts of a run, encoded in one call."""
    texts = {name: config.with_words(getattr(config, name)) for name in ("front", "side", "back")}
    texts |= {"negative": config.negative, "inversion": config.inversion}
    extra = {"overhead": config.overhead, "artefact": config.artefacts, "left": config.left, "right": config.right}
    texts |= {name: config.with_words(words) for name, words in extra.items() if words}
    encoded = encoder.encode_text(list(texts.values()))
    rows: dict[str, Any] = {name: encoded[i : i + 1] for i, name in enumerate(texts)}
    return ViewPrompts(**{"overhead": None, **rows}, blending=config)
