"""The optimisation as a node: a thin shell around the core's generator."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import Types, io

from ..dreamer_core.evaluation.best_of import BEST_OF, TRIAL_STEPS
from ..dreamer_core.optimize import PRESETS
from ..dreamer_core.settings import Setting
from .cleanup import described
from .host.progress import say
from .host.results import view_ui
from .host.sdxl import check_model
from .host.splat import to_splat
from .running import (
    NUMBERS,
    best_seed,
    build_config,
    final_views_input,
    fitted_to,
    height_note,
    joined,
    multiview_note,
    pictures_around,
    renderer_input,
    run,
    top_level,
    without_use,
    workflow_of,
)
from .sockets import (
    CATEGORY,
    DreamerCameras,
    DreamerClip,
    DreamerDensity,
    DreamerGuidance,
    DreamerPrompt,
    DreamerRegularizers,
    PromptBundle,
    errors_named,
    validated,
)
from .widgets import (
    PRESET,
    Overrides,
    one_of,
    overrides,
    plain_widgets,
    preset_widgets,
    seed_widget,
    settings_of,
)

NAME = "Dreamer XL Optimize"
PLACED = (*NUMBERS, "seed", "depth_share", "scale_noise", "memory")
"""Top-level settings whose inputs have their place in saved graphs."""


def clean_up() -> Setting:
    """Whether the finished object is cleaned."""
    return next(setting for setting in settings_of("cleanup") if setting.field == "enabled")


class DreamerXLOptimize(io.ComfyNode):
    """SPLAT from a prompt, by score distillation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        top = top_level()
        placed = {input.id: input for input in preset_widgets(top[name] for name in PLACED if name != "seed")}
        for name in NUMBERS:
            placed[name].optional = False
        cleanup = preset_widgets([clean_up()])[0]
        cleanup.id = "cleanup"

        def wired(kind: Any, name: str, tip: str) -> io.Input:
            return kind.Input(name, optional=True, tooltip=f"{tip} Not wired: the preset's.")

        return io.Schema(
            node_id="DreamerXLOptimize",
            display_name="Dreamer XL Optimize",
            category=CATEGORY,
            description="Makes the object of the prompt out of the initial splat. Cancelling keeps what is done: the "
            "same queue, or one with more steps, goes on from there.",
            search_aliases=["text to 3d", "dreamer xl", "score distillation", "gaussian splatting", "dreamfusion"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL MODEL; LoRAs and model patches take effect."),
                io.Vae.Input("vae", tooltip="SDXL's VAE. A private float32 copy of its encoder is used."),
                DreamerPrompt.Input("prompt", tooltip="From Dreamer XL Prompt."),
                io.Splat.Input("splat", tooltip="What to start from, e.g. Dreamer XL Initialize."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="official",
                    tooltip="Gives every value that is not set here. "
                    + " ".join(f"{name}: {preset.about}." for name, preset in PRESETS.items()),
                ),
                *(placed[name] for name in NUMBERS),
                seed_widget(top["seed"].knob.tip, optional=False),
                wired(DreamerGuidance, "guidance", "Method and timesteps."),
                wired(DreamerClip, "clip", "Pixel-by-pixel gradient clipping."),
                wired(DreamerCameras, "cameras", "Cameras and backgrounds."),
                wired(DreamerDensity, "density", "Growing and pruning."),
                final_views_input(),
                renderer_input(),
                wired(DreamerRegularizers, "regularizers", "Smoothness and the size of the Gaussians."),
                placed["depth_share"],
                placed["scale_noise"],
                placed["memory"],
                cleanup,
                *preset_widgets(setting for name, setting in top.items() if name not in PLACED),
                *plain_widgets((BEST_OF, TRIAL_STEPS)),
            ],
            outputs=[
                io.Splat.Output(display_name="splat", tooltip="The finished object."),
                io.Image.Output(display_name="views", tooltip="The object from all around, on white."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, resolution: int | None = None, preset: str | None = None) -> bool | str:
        if wrong := one_of("preset", preset, PRESETS):
            return wrong
        return validated(
            cls,
            {"resolution": resolution},
            lambda: build_config("official", overrides([top_level()["resolution"]], {"resolution": resolution})),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        prompt: PromptBundle,
        splat: Types.SPLAT,
        preset: str,
        seed: int,
        guidance: Overrides | None = None,
        clip: Overrides | None = None,
        cameras: Overrides | None = None,
        density: Overrides | None = None,
        final_views: int = 8,
        renderer: str = "auto",
        regularizers: Overrides | None = None,
        cleanup: str = PRESET,
        best_of: int = BEST_OF.default,
        trial_steps: int = TRIAL_STEPS.default,
        **values: Any,
    ) -> io.NodeOutput:
        with errors_named(NAME), torch.inference_mode(False), torch.enable_grad():
            check_model(model)
            own = overrides(top_level().values(), values) | {"seed": seed}  # which has no untouched value
            own |= overrides([clean_up()], {"enabled": cleanup})
            settings = (guidance, clip, cameras, density, regularizers, own)
            config = build_config(preset, *settings)
            useless = without_use(config, PRESETS[preset].config, *settings)
            config, fit = fitted_to(model, config, cls.hidden, *settings)
            touched = [name for one in settings for name in one or ()]
            useless = joined(fit.note, height_note(prompt, preset), multiview_note(config, model, touched), useless)
            scene, shown_on = (model, vae, prompt, splat), (renderer, cls.hidden.unique_id, workflow_of(cls.hidden))
            config, chosen = best_seed(*scene, config, best_of, trial_steps, *shown_on)
            made, note = run(*scene, config, *shown_on, joined(chosen, useless))
            gaussians = made.result()
            if config.cleanup.enabled:
                line = f"{len(gaussians):,} Gaussians · {described(made.cleaned)}"
                say(f"{line} · {note}" if note else line, cls.hidden.unique_id)
            pictures = pictures_around(gaussians, final_views, config.resolution, renderer)
            return io.NodeOutput(to_splat(gaussians), pictures, ui=view_ui([(gaussians, pictures)]))
