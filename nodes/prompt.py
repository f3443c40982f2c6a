"""What to make, in words, by direction of view."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dreamer_core.prompts import PerpNeg, PromptConfig, ViewPrompts, encode_prompts
from .host.conditioning import HostTextEncoder, from_comfy
from .sockets import CATEGORY, DreamerPrompt, PromptBundle, errors_named, validated

_ELEVATIONS = {"min": -90.0, "max": 90.0, "step": 1.0}


def _overhead_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "overhead_from",
            default=45.0,
            **_ELEVATIONS,
            optional=True,
            advanced=True,
            tooltip="Elevation in degrees where the overhead prompt begins to blend in. Good values: 30 to 60.",
        ),
        io.Float.Input(
            "overhead_to",
            default=75.0,
            **_ELEVATIONS,
            optional=True,
            advanced=True,
            tooltip="Elevation in degrees from which only the overhead prompt counts. Good values: 60 to 90.",
        ),
    ]


def _perp_neg_inputs() -> list[io.Input]:
    def number(name: str, default: float, low: float, high: float, tooltip: str) -> io.Input:
        return io.Float.Input(
            name, default=default, min=low, max=high, step=0.1, optional=True, advanced=True, tooltip=tooltip
        )

    decay = "(unitless). Larger: avoided less as it comes into view."
    return [
        io.Boolean.Input(
            "perp_neg",
            display_name="avoid other sides",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Also steer away from the other directions (Perp-Neg), against several faces. Up to two more "
            "network evaluations per view.",
        ),
        number("perp_neg_weight", -2.0, -20.0, 0.0, "How strongly other sides are avoided. Published: -2. -4 to -0.5."),
        number("perp_neg_front_decay", 2.0, 0.0, 100.0, f"Of the front {decay} Published: 2. 1 to 5."),
        number("perp_neg_side_decay", 10.0, 0.0, 100.0, f"Of the sides {decay} Published: 10. 5 to 20."),
    ]


class DreamerXLPrompt(io.ComfyNode):
    """DREAMER_PROMPT from words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def words(name: str, default: str, tooltip: str) -> io.Input:
            return io.String.Input(name, default=default, optional=True, advanced=True, tooltip=tooltip)

        return io.Schema(
            node_id="DreamerXLPrompt",
            display_name="Dreamer XL Prompt",
            category=CATEGORY,
            description="Describes the object. Each camera gets words for the side it sees, blended by angle.",
            search_aliases=["text to 3d prompt", "view dependent prompt", "directional prompt", "janus"],
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoders of the SDXL checkpoint; a LoRA's CLIP works too."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a red mug",
                    tooltip="One object in plain words, without a place or a camera: 'a red mug'. Weights such as "
                    "(red:1.2) and embeddings work.",
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    optional=True,
                    tooltip="What to steer away from, e.g. 'blurry, low quality'. Empty is a good start.",
                ),
                words("front", "front view", "Added for cameras in front (azimuth 0 degrees). Empty adds nothing."),
                words("side", "side view", "Added for cameras at the sides (azimuth 90 and -90 degrees)."),
                words("back", "back view", "Added for cameras behind (azimuth 180 degrees)."),
                words("overhead", "", "Added for cameras above, e.g. 'overhead view'. Empty switches it off."),
                words("inversion", "", "Prompt of the DDIM paths. Empty, as published, is right nearly always."),
                *_overhead_inputs(),
                *_perp_neg_inputs(),
                words(
                    "artefacts", "", "For the method sds_bridge: what to get away from, e.g. 'oversaturated, blurry'."
                ),
            ],
            outputs=[DreamerPrompt.Output(display_name="prompt", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        prompt: str | None = None,
        overhead_from: float | None = 45.0,
        overhead_to: float | None = 75.0,
    ) -> bool | str:
        above: dict[str, Any] = {"overhead_from": overhead_from, "overhead_to": overhead_to}
        return validated(cls, above, lambda: PromptConfig("linked" if prompt is None else prompt, **above))

    @classmethod
    def execute(
        cls,
        clip: object,
        prompt: str,
        negative: str = "",
        front: str = "front view",
        side: str = "side view",
        back: str = "back view",
        overhead: str = "",
        inversion: str = "",
        overhead_from: float = 45.0,
        overhead_to: float = 75.0,
        perp_neg: bool = False,
        perp_neg_weight: float = -2.0,
        perp_neg_front_decay: float = 2.0,
        perp_neg_side_decay: float = 10.0,
        artefacts: str = "",
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Prompt"):
            weights = PerpNeg(perp_neg_weight, perp_neg_front_decay, perp_neg_side_decay)
            words: dict[str, Any] = {"front": front, "side": side, "back": back, "overhead": overhead}
            words |= {"inversion": inversion, "negative": negative, "artefacts": artefacts}
            above: dict[str, Any] = {"overhead_from": overhead_from, "overhead_to": overhead_to}
            config = PromptConfig(prompt, perp_neg=perp_neg, perp_neg_weights=weights, **words, **above)
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
                view("negative", "What to steer away from; an empty prompt is a good start.", optional=False),
                view("side", "Seen from the sides (azimuth 90 and -90 degrees). Not wired: as front."),
                view("back", "Seen from behind (azimuth 180 degrees). Not wired: as side."),
                view("overhead", "Seen from above. Not wired: nothing special happens above."),
                view("inversion", "Of the DDIM paths; an empty prompt, as published. Not wired: as negative."),
                *_overhead_inputs(),
                *_perp_neg_inputs(),
                view("artefact", "For the method sds_bridge: the prompt with words for artefacts added to it."),
            ],
            outputs=[DreamerPrompt.Output(display_name="prompt", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(cls, overhead_from: float | None = 45.0, overhead_to: float | None = 75.0) -> bool | str:
        values: dict[str, Any] = {"overhead_from": overhead_from, "overhead_to": overhead_to}
        return validated(cls, values, lambda: PromptConfig("linked", **values))

    @classmethod
    def execute(
        cls,
        front: list,
        negative: list,
        side: list | None = None,
        back: list | None = None,
        overhead: list | None = None,
        inversion: list | None = None,
        overhead_from: float = 45.0,
        overhead_to: float = 75.0,
        perp_neg: bool = False,
        perp_neg_weight: float = -2.0,
        perp_neg_front_decay: float = 2.0,
        perp_neg_side_decay: float = 10.0,
        artefact: list | None = None,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Prompt (from Conditioning)"):
            given = {"front": front, "side": side, "back": back, "overhead": overhead}
            given |= {"negative": negative, "inversion": inversion, "artefact": artefact}
            weights = PerpNeg(perp_neg_weight, perp_neg_front_decay, perp_neg_side_decay)
            parts = {k: from_comfy(v, k) for k, v in given.items() if v is not None}
            sizes = {k: v for _, s in parts.values() for k, v in s.items()}
            front_part = parts["front"]
            side_part = parts.get("side", front_part)
            views = ViewPrompts(
                front=front_part[0],
                side=side_part[0],
                back=parts.get("back", side_part)[0],
                overhead=parts["overhead"][0] if "overhead" in parts else None,
                negative=parts["negative"][0],
                inversion=parts.get("inversion", parts["negative"])[0],
                overhead_from=overhead_from,
                overhead_to=overhead_to,
                perp_neg=weights if perp_neg else None,
                artefact=parts["artefact"][0] if "artefact" in parts else None,
            )
            return io.NodeOutput(PromptBundle(views, sizes))
