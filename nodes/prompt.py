"""What to make, in words, by direction of view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..dreamer_core.prompts import PromptConfig, ViewPrompts, encode_prompts
from ..dreamer_core.settings import own_settings
from .host.conditioning import HostTextEncoder, from_comfy
from .sockets import CATEGORY, DreamerPrompt, PromptBundle, errors_named, validated
from .widgets import plain_values, plain_widgets

SETTINGS = own_settings(PromptConfig)
BLENDING = tuple(setting for setting in SETTINGS if setting.kind is not str)
"""Settings of prompts that hold no words."""


def _blended(values: Mapping[str, Any]) -> PromptConfig:
    return PromptConfig(**plain_values(BLENDING, values))


class DreamerXLPrompt(io.ComfyNode):
    """DREAMER_PROMPT from words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = plain_widgets(SETTINGS)
        next(i for i in inputs if i.id == "prompt").optional = False
        return io.Schema(
            node_id="DreamerXLPrompt",
            display_name="Dreamer XL Prompt",
            category=CATEGORY,
            description="Describes the object. Each camera gets words for the side it sees, blended by angle.",
            search_aliases=["text to 3d prompt", "view dependent prompt", "directional prompt", "janus"],
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoders of the SDXL checkpoint; a LoRA's CLIP works too."),
                *inputs,
            ],
            outputs=[DreamerPrompt.Output(display_name="prompt", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        prompt: str | None = None,
        overhead_from: float | None = PromptConfig.overhead_from,
        overhead_to: float | None = PromptConfig.overhead_to,
    ) -> bool | str:
        above = {"overhead_from": overhead_from, "overhead_to": overhead_to}
        words: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
        return validated(cls, above, lambda: PromptConfig(**words, **plain_values(BLENDING, above)))

    @classmethod
    def execute(cls, clip: object, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Prompt"):
            config = PromptConfig(**plain_values(SETTINGS, values))
            return io.NodeOutput(PromptBundle(encode_prompts(HostTextEncoder(clip), config)))


class DreamerXLPromptFromConditioning(io.ComfyNode):
    """DREAMER_PROMPT from CONDITIONING that other nodes encoded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def view(name: str, tooltip: str, optional: bool = True) -> io.Input:
            return io.Conditioning.Input(name, optional=optional, tooltip=tooltip)

        return io.Schema(
            node_id="DreamerXLPromptFromConditioning",
            display_name="Dreamer XL Prompt (from Conditioning)",
            category=CATEGORY,
            description="The same from CONDITIONING: any text encoding node of SDXL fits, one per direction.",
            search_aliases=["conditioning to 3d", "directional conditioning", "view dependent conditioning"],
            inputs=[
                view("front", "Seen from the front (azimuth 0 degrees).", optional=False),
                view("negative", "What to avoid; an empty prompt is a good start.", optional=False),
                view("side", "Seen from the sides (azimuth 90 and -90 degrees). Not wired: as front."),
                view("back", "Seen from behind (azimuth 180 degrees). Not wired: as side."),
                view("overhead", "Seen from above. Not wired: nothing special happens above."),
                view("inversion", "Of the DDIM paths; an empty prompt, as published. Not wired: as negative."),
                *plain_widgets(BLENDING),
                view("artefact", "For the method sds_bridge: the prompt with words for artefacts added to it."),
                view("left", "Seen from the object's own left (azimuth 90 degrees). Not wired: as side."),
                view("right", "Seen from the object's own right (azimuth -90 degrees). Not wired: as side."),
            ],
            outputs=[DreamerPrompt.Output(display_name="prompt", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        overhead_from: float | None = PromptConfig.overhead_from,
        overhead_to: float | None = PromptConfig.overhead_to,
    ) -> bool | str:
        above = {"overhead_from": overhead_from, "overhead_to": overhead_to}
        return validated(cls, above, lambda: _blended(above))

    @classmethod
    def execute(
        cls,
        front: list,
        negative: list,
        side: list | None = None,
        back: list | None = None,
        overhead: list | None = None,
        inversion: list | None = None,
        artefact: list | None = None,
        left: list | None = None,
        right: list | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Prompt (from Conditioning)"):
            given = {"front": front, "side": side, "back": back, "overhead": overhead}
            given |= {"negative": negative, "inversion": inversion, "artefact": artefact, "left": left, "right": right}
            parts = {k: from_comfy(v, k) for k, v in given.items() if v is not None}
            sizes = {k: v for _, s in parts.values() for k, v in s.items()}
            front_part = parts["front"]
            side_part = parts.get("side", front_part)
            optional = {k: parts[k][0] for k in ("artefact", "left", "right") if k in parts}
            views = ViewPrompts(
                front=front_part[0],
                side=side_part[0],
                back=parts.get("back", side_part)[0],
                overhead=parts["overhead"][0] if "overhead" in parts else None,
                negative=parts["negative"][0],
                inversion=parts.get("inversion", parts["negative"])[0],
                blending=_blended(values),
                **optional,
            )
            return io.NodeOutput(PromptBundle(views, sizes))
