"""Restyle and edit as nodes: each takes text encoders and words itself, so a graph is loader, splat, node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import Types, io

from ..dreamer_core.editing.config import STEPS, TASKS, EditConfig, Task, edit_config, unread_edit
from ..dreamer_core.editing.regions import Region
from ..dreamer_core.editing.settings import EditSettings
from ..dreamer_core.editing.work import Work
from ..dreamer_core.errors import InputError
from ..dreamer_core.optimize import PRESETS
from ..dreamer_core.optimize.presets import STARTER_SIDES
from ..dreamer_core.prompts import PromptConfig, ViewPrompts, encode_prompts
from ..dreamer_core.settings import own_settings
from .host.conditioning import HostTextEncoder
from .host.results import view_ui
from .host.sdxl import check_model
from .host.splat import one_from_splat, with_changes
from .running import (
    final_views_input,
    fitted_to,
    joined,
    multiview_note,
    no_effect,
    pictures_around,
    renderer_input,
    run,
    top_level,
    without_use,
    workflow_of,
)
from .sockets import CATEGORY, DreamerCameras, DreamerGuidance, DreamerRegion, PromptBundle, errors_named, validated
from .widgets import Overrides, applied, one_of, overrides, plain_values, plain_widgets, preset_widgets, seed_widget

SETTINGS = own_settings(EditSettings)
FIRST = ("strength", "change")
"""Settings that stand before all others."""


def _inputs(task: Task) -> list[io.Input]:
    """All inputs but the words."""
    widgets = {s.field: w for s, w in zip(SETTINGS, plain_widgets(SETTINGS), strict=True)}
    for name, widget in widgets.items():
        widget.default = getattr(TASKS[task], name)
        if name not in FIRST and name not in ("harmonics", "focus"):
            widget.advanced = True
    sizes = {w.id: w for w in preset_widgets(top_level()[name] for name in ("views", "resolution", "memory"))}
    steps = io.Int.Input(
        "steps",
        default=STEPS,
        min=1,
        max=1_000_000,
        optional=True,
        tooltip=f"Steps, over which all that changes in turn is spread. {STEPS} is enough for most.",
    )
    wired = "Not wired: the preset's."
    return [
        *(widgets.pop(name) for name in FIRST),
        steps,
        seed_widget(top_level()["seed"].knob.tip),
        DreamerRegion.Input(
            "region", optional=True, tooltip="From Dreamer XL Region: what may change. Not wired: the whole splat."
        ),
        *widgets.values(),
        *sizes.values(),
        DreamerGuidance.Input("guidance", optional=True, tooltip=f"Method and timesteps. {wired}"),
        DreamerCameras.Input("cameras", optional=True, tooltip=f"Cameras and backgrounds. {wired}"),
        renderer_input(),
        final_views_input(),
    ]


def _words(name: str, tip: str, default: str = "", optional: bool = False) -> io.Input:
    return io.String.Input(name, default=default, multiline=True, dynamic_prompts=True, optional=optional, tooltip=tip)


def schema(task: Task, node_id: str, title: str, about: str, aliases: list[str], words: list[io.Input]) -> io.Schema:
    """What both nodes share."""
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category=CATEGORY,
        description=about,
        search_aliases=aliases,
        inputs=[
            io.Model.Input("model", tooltip="An SDXL MODEL; LoRAs and model patches take effect."),
            io.Clip.Input("clip", tooltip="Its text encoders; a LoRA's CLIP works too."),
            io.Vae.Input("vae", tooltip="SDXL's VAE. A private float32 copy of its encoder is used."),
            io.Splat.Input("splat", tooltip="Any splat: TripoSplat's, a file, a scan, of any size and place."),
            *words,
            io.Combo.Input(
                "preset",
                options=list(PRESETS),
                default="fast",
                tooltip="Gives method, views, resolution and learning rates. "
                + " ".join(f"{name}: {preset.about}." for name, preset in PRESETS.items()),
            ),
            *_inputs(task),
        ],
        outputs=[
            io.Splat.Output(display_name="splat", tooltip="The changed splat, where and as large as it was."),
            io.Image.Output(display_name="views", tooltip="The splat from all around, on white."),
        ],
        hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.dynprompt],
    )


def build_config(task: Task, preset: str, values: Mapping[str, Any], *wired: Overrides | None) -> EditConfig:
    """The preset as a run that changes a splat, with what the node and its settings nodes say. Errors: InputError."""
    if preset not in PRESETS:
        raise InputError("preset", f"one of {', '.join(PRESETS)}", preset)
    own: dict[str, Any] = {f"edit.{name}": value for name, value in plain_values(SETTINGS, values).items()}
    own |= overrides([top_level()[name] for name in ("views", "resolution", "memory")], values)
    own |= {name: values[name] for name in ("steps", "seed") if values.get(name) is not None}
    own.setdefault("steps", STEPS)
    return applied(edit_config(PRESETS[preset], task, own), *wired)


def encoded(clip: Any, text: str, negative: str, preset: str) -> ViewPrompts:
    """Words by direction; the starter's for its two sides."""
    sides = STARTER_SIDES if preset == "starter" else {}
    return encode_prompts(HostTextEncoder(clip), PromptConfig(text, negative or PRESETS[preset].negative, **sides))


def change(
    task: Task, node: type[io.ComfyNode], model: Any, clip: Any, vae: Any, splat: Types.SPLAT, words: tuple[str, str],
    negative: str, preset: str, region: Region | None, values: Mapping[str, Any], wired: tuple[Overrides | None, ...],
) -> io.NodeOutput:  # fmt: skip
    """Run it and show it; `words` say what should be and what is ("": plain guidance)."""
    check_model(model)
    config = build_config(task, preset, values, *wired)
    useless = without_use(config, build_config(task, preset, values), *wired)
    config, fit = fitted_to(model, config, node.hidden, *wired)
    given = one_from_splat(splat)
    free = None if region is None else region.mask(given)
    prompts, source = (encoded(clip, text, negative, preset) if text else None for text in words)
    if prompts is None:
        raise InputError("prompt", "what the splat should be", "an empty text")
    work = Work.of(given, config.edit, free, source)
    touched = [name for one in wired for name in one or ()]
    own = [f"edit.{s.field}" for s in SETTINGS if getattr(config.edit, s.field) != getattr(TASKS[task], s.field)]
    useless = joined(useless, no_effect(unread_edit(config.edit, [*own, *touched])))
    unused = multiview_note(config, model, touched)
    renderer = values.get("renderer") or "auto"
    made, _ = run(
        model, vae, PromptBundle(prompts), splat, config, renderer, node.hidden.unique_id,
        workflow_of(node.hidden), joined(fit.note, unused, useless, *work.described), work,
    )  # fmt: skip
    result, shown = made.result(), made.shown().detach()
    pictures = pictures_around(shown, values.get("final_views") or 8, config.resolution, renderer)
    return io.NodeOutput(with_changes(splat, result, work.free.cpu()), pictures, ui=view_ui([(result, pictures)]))


class DreamerXLRestyle(io.ComfyNode):
    """SPLAT in another style."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "restyle",
            "DreamerXLRestyle",
            "Dreamer XL Restyle",
            "The same object in the style of checkpoint, LoRA and prompt. Anchors keep outline and surface; cancelling "
            "keeps what is done.",
            ["style splat", "refine splat", "gaussian restyle", "image to image for splats", "texture splat"],
            [
                _words("prompt", "What it should be, e.g. 'a golden mug'.", "a red mug"),
                _words("negative", "What to avoid. Empty: the preset's.", optional=True),
                _words("source", "What it is. Then only the difference of both texts counts.", optional=True),
            ],
        )

    @classmethod
    def validate_inputs(cls, resolution: int | None = None, preset: str | None = None) -> bool | str:
        return checked(cls, "restyle", resolution, preset)

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        splat: Types.SPLAT,
        prompt: str,
        preset: str,
        negative: str = "",
        source: str = "",
        region: Region | None = None,
        guidance: Overrides | None = None,
        cameras: Overrides | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Restyle"), torch.inference_mode(False), torch.enable_grad():
            words, wired = (prompt.strip(), source.strip()), (guidance, cameras)
            return change("restyle", cls, model, clip, vae, splat, words, negative, preset, region, values, wired)


class DreamerXLEdit(io.ComfyNode):
    """SPLAT with what the words say otherwise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "edit",
            "DreamerXLEdit",
            "Dreamer XL Edit",
            "Changes what two texts say differently, and keeps what both share (Delta Denoising Score); all of the "
            "splat, or a region of it.",
            ["edit splat", "recolour splat", "delta denoising", "change gaussian splat", "inpaint splat"],
            [
                _words("source", "What it is, e.g. 'a red car'.", "a red car"),
                _words("prompt", "What it should be, e.g. 'a blue car'.", "a blue car"),
                _words("negative", "What to avoid. Empty: the preset's.", optional=True),
            ],
        )

    @classmethod
    def validate_inputs(cls, resolution: int | None = None, preset: str | None = None) -> bool | str:
        return checked(cls, "edit", resolution, preset)

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        splat: Types.SPLAT,
        source: str,
        prompt: str,
        preset: str,
        negative: str = "",
        region: Region | None = None,
        guidance: Overrides | None = None,
        cameras: Overrides | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Edit"), torch.inference_mode(False), torch.enable_grad():
            words, wired = (prompt.strip(), source.strip()), (guidance, cameras)
            if not words[1]:
                raise InputError("source", "what the splat is", "an empty text", "or use Dreamer XL Restyle")
            return change("edit", cls, model, clip, vae, splat, words, negative, preset, region, values, wired)


def checked(node: type[io.ComfyNode], task: Task, resolution: int | None, preset: str | None) -> bool | str:
    """What both `validate_inputs` return."""
    if wrong := one_of("preset", preset, PRESETS):
        return wrong
    values = {} if resolution is None else {"resolution": resolution}
    return validated(node, {"resolution": resolution}, lambda: build_config(task, "starter", values))
