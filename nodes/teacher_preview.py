"""A look at the teacher before an hour is spent: its own pictures, whether it tells directions apart, and the cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import Types, io, ui
from torch import Tensor

from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.optimize import PRESETS, OptimizeConfig
from ..dreamer_core.optimize.apart import views_apart
from ..dreamer_core.optimize.cost import measure
from ..dreamer_core.optimize.profiles import Fitted
from ..dreamer_core.optimize.views import views_at_most
from ..dreamer_core.rendering import resolve_backend
from ..dreamer_core.settings import own_settings
from ..dreamer_core.teacher_preview import DIRECTIONS, SamplingConfig, draw, findings, recognise, summary
from .host.multiview import azimuths_of
from .host.noise import noise_form
from .host.progress import say
from .host.sdxl import check_model, loaded_teacher
from .host.splat import one_from_splat
from .running import NUMBERS, build_config, fitted_to, on_device, top_level, without_effect
from .sockets import (
    CATEGORY,
    DreamerCameras,
    DreamerDensity,
    DreamerGuidance,
    DreamerPrompt,
    PromptBundle,
    errors_named,
)
from .widgets import Overrides, one_of, overrides, plain_values, plain_widgets, preset_widgets, seed_widget

NAME = "Dreamer XL Teacher Preview"
AFTER_DRAWING = 5
"""Parts of the bar behind the pictures: the comparison, and steps that are timed."""


class DreamerXLTeacherPreview(io.ComfyNode):
    """IMAGE and STRING: what the MODEL draws for a prompt, and what Optimize would cost."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def wired(kind: Any, name: str) -> io.Input:
            return kind.Input(name, optional=True, tooltip="As for Dreamer XL Optimize, whose cost is estimated.")

        return io.Schema(
            node_id="DreamerXLTeacherPreview",
            display_name=NAME,
            category=CATEGORY,
            description="Shows in seconds what the MODEL, with its LoRAs and patches, draws for the prompt from each "
            "direction, whether it tells the directions apart, and what Dreamer XL Optimize would cost.",
            search_aliases=["test prompt", "estimate time", "view dependent prompt check", "janus", "dry run"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that Dreamer XL Optimize gets."),
                io.Vae.Input("vae", tooltip="SDXL's VAE, as for Optimize."),
                DreamerPrompt.Input("prompt", tooltip="From Dreamer XL Prompt."),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="official", tooltip="The preset that Optimize runs with."
                ),
                *preset_widgets(top_level()[name] for name in NUMBERS),
                *plain_widgets(own_settings(SamplingConfig)),
                seed_widget("Other seeds show how much the pictures differ among themselves."),
                io.Splat.Input(
                    "splat", optional=True, tooltip="What Optimize starts from. Not wired: as many as the preset's."
                ),
                wired(DreamerGuidance, "guidance"),
                wired(DreamerCameras, "cameras"),
                wired(DreamerDensity, "density"),
            ],
            outputs=[
                io.Image.Output(display_name="views", tooltip=f"The pictures: {', '.join(DIRECTIONS)}."),
                io.String.Output(display_name="findings", tooltip="What was found, in lines."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, preset: str | None = None) -> bool | str:
        return one_of("preset", preset, PRESETS) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        prompt: PromptBundle,
        preset: str,
        seed: int = 0,
        splat: Types.SPLAT | None = None,
        guidance: Overrides | None = None,
        cameras: Overrides | None = None,
        density: Overrides | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        with errors_named(NAME), torch.inference_mode(False), torch.enable_grad():
            check_model(model)
            own = overrides(top_level().values(), values)
            settings = (guidance, cameras, density, own)
            config, fit = fitted_to(model, build_config(preset, *settings), cls.hidden, *settings)
            if splat is None:
                start = PRESETS[preset].start(torch.Generator().manual_seed(seed))
            else:
                start = one_from_splat(splat)
            sampling = SamplingConfig(**plain_values(own_settings(SamplingConfig), values)).for_teacher(fit.profile)
            pictures, text, line = look(model, vae, prompt, config, fit, start, sampling, seed, cls.hidden.unique_id)
            images = decoded(model, vae, pictures)
            say(line, cls.hidden.unique_id)
            return io.NodeOutput(images, text, ui=ui.PreviewImage(images, cls=cls))


def look(
    model: Any,
    vae: Any,
    prompt: PromptBundle,
    config: OptimizeConfig,
    fit: Fitted,
    start: Gaussians,
    sampling: SamplingConfig,
    seed: int,
    node_id: str | None,
) -> tuple[Tensor, str, str]:
    """Latents [V, C, h, w] of the four sides, what was found, and the same in one line for the node."""
    device, drawn = model.load_device, sampling.sampling_steps
    backend = resolve_backend("auto", device)
    free = int(mm.get_free_memory(device))
    bar, of = comfy.utils.ProgressBar(drawn + AFTER_DRAWING, node_id=node_id), drawn + AFTER_DRAWING
    size: dict[str, Any] = {
        "views": views_at_most(config, azimuths_of(model)),
        "resolution": config.resolution,
        "sizes": prompt.sizes,
    }
    with (
        loaded_teacher(model, vae, **size, memory=config.memory) as (whole, one_by_one),
        views_apart(whole, len(DIRECTIONS), config.resolution, device) as teacher,
    ):
        views = on_device(prompt.views, device)
        say("drawing", node_id)
        pictures = draw(
            *(teacher, views),
            resolution=config.resolution,
            sampling=sampling,
            rescale=fit.rescale_of_pictures(config),
            seed=seed,
            on_step=lambda done, _: bar.update_absolute(done, of),
        )
        say("comparing, timing two steps", node_id)
        recognition = recognise(teacher, views, pictures, seed=seed)
        bar.update_absolute(drawn + 1, of)
        config = replace(config, recompute_encoder=config.recompute_encoder or one_by_one)
        cost = measure(teacher, views, config, start.to(device), backend)
    bar.update_absolute(of, of)
    note = without_effect(config.guidance.method, model)
    text, line = findings(fit, recognition, cost, free), summary(fit, recognition, cost)
    return pictures, "\n".join(filter(None, (text, note))), " · ".join(filter(None, (line, note)))


def decoded(model: Any, vae: Any, latents: Tensor) -> Tensor:  # [V, H, W, 3]
    """Pictures of a teacher's latents, as ComfyUI's VAE Decode makes them."""
    with torch.inference_mode():
        latents = latents.to(mm.intermediate_device(), torch.float32) * noise_form(model).deviation
        images = vae.decode(model.get_model_object("latent_format").process_out(latents))
    return images.clone()
