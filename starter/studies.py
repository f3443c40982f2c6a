"""What is compared in text to 3D with the starter checkpoint: variants, prompts, and steps of equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dreamer_core.optimize import PRESETS, DensityConfig, OptimizeConfig, cost
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.setting_values import changed
from dreamer_core.teachers.teacher import Conditioning

from .world import COLOURS, KIND_NAMES, Subject


@dataclass(frozen=True)
class Variant:
    """One row of a table."""

    name: str
    config: OptimizeConfig
    prompt: dict[str, Any] = field(default_factory=dict)
    """Fields of PromptConfig besides the prompt."""
    cloud: bool = False
    """Begin with a rough cloud of the object's own shape, as a text-to-shape model gives it, not with a ball."""
    size: float = 0.6
    """Radius of that ball in world units."""
    opacity: float = 0.1
    """Of its Gaussians."""


STARTER = PRESETS["starter"]


def prompts_20() -> list[Subject]:
    """Every kind once and four a second time, colours and patterns in turns; the first is "a red mug"."""
    kinds = [*KIND_NAMES, "mug", "chair", "car", "duck"]
    colours = list(COLOURS)
    # Plain things twice as often as patterned ones.
    patterns = ("plain", "striped", "plain", "dotted")
    return [Subject(kind, colours[(5 * i + i // 16) % 8], patterns[i % 4]) for i, kind in enumerate(kinds)]


def of_methods(base: OptimizeConfig) -> list[Variant]:
    """TSM, ISM and SDS, and TSM without clipping."""
    return [
        Variant("tsm", base),
        Variant("ism", changed(base, {"guidance.method": "ism"})),
        Variant("sds", changed(base, {"guidance.method": "sds", "guidance.cfg": 25.0})),
        Variant("tsm, no clipping", replace(base, clip=replace(base.clip, mode="off"))),
    ]


def of_ablation(base: OptimizeConfig) -> list[Variant]:
    """What the ablation of docs/ablation.md compares; each differs from the first in one thing."""

    def guided(name: str, **given: Any) -> Variant:
        return Variant(name, changed(base, {f"guidance.{setting}": value for setting, value in given.items()}))

    no_words = {"front": "", "side": "", "back": "", "left": "", "right": ""}
    one_side = {"left": "", "right": ""}
    return [
        Variant("TSM", base),
        guided("gamma 0 (ISM)", gamma=0.0),
        guided("gamma 0.3", gamma=0.3),
        Variant("no clipping", replace(base, clip=replace(base.clip, mode="off"))),
        Variant("no view words", base, no_words),
        Variant("left not told from right", base, one_side),
        Variant("Perp-Neg", base, {"perp_neg": True}),
        Variant("rough cloud first", base, cloud=True),
        guided("SDS, guidance 25", method="sds", cfg=25.0),
        guided("CSD", method="csd"),
        guided("SDI", method="sdi", t_first=950, t_last=50),
        guided("ASD", method="asd"),
        Variant("SDS-Bridge", guided("", method="sds_bridge", cfg=25.0).config, {"artefacts": "blurry"}),
    ]


def of_clipping(base: OptimizeConfig) -> list[Variant]:
    """With density control, which the preset leaves off, so that unstable gradients can split Gaussians.

    Four refinements double their number at most, so that it never meets a cap.
    """
    growing = DensityConfig(start=10, stop=base.steps, every=30, reset_every=0)
    base = replace(base, density=growing)
    return [
        Variant("clipping", base),
        Variant("no clipping", replace(base, clip=replace(base.clip, mode="off"))),
    ]


def of_kinds(base: OptimizeConfig) -> list[Variant]:
    """The preset alone, on many kinds and seeds."""
    return [Variant("starter preset", base, size=STARTER.size, opacity=STARTER.opacity)]


STUDIES = {"kinds": of_kinds, "methods": of_methods, "clipping": of_clipping, "ablation": of_ablation}


class _Wordless:
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), 1, 1), torch.zeros(len(prompts), 1))


def evaluations_per_step(variant: Variant) -> float:
    """Mean network evaluations per view and step over the whole schedule."""
    prompts = encode_prompts(_Wordless(), PromptConfig("x", **variant.prompt))
    return cost.evaluations_per_step(variant.config, prompts)


def with_steps(config: OptimizeConfig, steps: int) -> OptimizeConfig:
    """The same schedules stretched over `steps`."""
    warmup = round(config.guidance.warmup_steps * steps / config.steps)
    return replace(config, steps=steps, schedule_steps=steps, guidance=replace(config.guidance, warmup_steps=warmup))
