"""The optimisation as a node: a thin shell around the core's generator."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core import __version__
from ..dreamer_core.cameras import turntable
from ..dreamer_core.diffusion.predictor import Conditioning
from ..dreamer_core.guidance.clipping import ClipConfig
from ..dreamer_core.optimize import (
    PRESETS,
    DensityConfig,
    GuidanceConfig,
    OptimizationState,
    OptimizeConfig,
    optimize,
)
from ..dreamer_core.prompts import ViewPrompts
from ..dreamer_core.rendering import resolve_backend
from .host.identity import Key, add_model, add_vae
from .host.images import views_image
from .host.progress import Progress
from .host.sdxl import check_model, loaded_teacher
from .host.splat import one_from_splat, to_splat
from .host.store import RunStore
from .sockets import (
    CATEGORY,
    CameraSettings,
    DreamerCameras,
    DreamerClip,
    DreamerDensity,
    DreamerGuidance,
    DreamerPrompt,
    PromptBundle,
    errors_named,
    validated,
)

NAME = "Dreamer XL Optimize"
RENDERERS = ("auto", "gsplat", "numba", "torch")
SAVE_EVERY = 120.0
"""Seconds between two saves of a running optimisation."""


def build_config(
    preset: str,
    numbers: dict[str, int],
    guidance: GuidanceConfig | None,
    clip: ClipConfig | None,
    cameras: CameraSettings | None,
    density: DensityConfig | None,
) -> OptimizeConfig:
    """The preset, with what is wired and what is not 0. Errors: InputError."""
    given: dict[str, Any] = {k: v for k, v in numbers.items() if v or k == "seed"}
    wired = {"guidance": guidance, "clip": clip, "density": density}
    given |= {k: v for k, v in wired.items() if v is not None}
    if cameras is not None:
        given |= {"cameras": cameras.orbit, "background": cameras.background}
    # Fewer or more steps keep the preset's schedule, so that a run can be extended.
    return replace(PRESETS[preset], **given)


def on_device(prompts: ViewPrompts, device: torch.device) -> ViewPrompts:
    """Ordinary tensors on the teacher's device."""
    found = {f.name: getattr(prompts, f.name) for f in fields(prompts)}
    moved = {
        name: Conditioning(value.tokens.to(device).clone(), value.pooled.to(device).clone())
        for name, value in found.items()
        if isinstance(value, Conditioning)
    }
    return replace(prompts, **moved)


def run_key(
    model: Any, vae: Any, prompt: PromptBundle, splat: Types.SPLAT, config: OptimizeConfig, backend: str
) -> str:
    """Everything that decides the result, except the number of steps."""
    key = Key().text("dreamer-xl-run-1", __version__, backend, model.load_device.type)
    key.text(replace(config, steps=1, recompute_encoder=False), sorted(prompt.sizes.items()))
    for field in fields(prompt.views):
        value = getattr(prompt.views, field.name)
        if isinstance(value, Conditioning):
            key.text(field.name).tensor(value.tokens).tensor(value.pooled)
        else:
            key.text(field.name, value)
    for name in ("positions", "scales", "rotations", "opacities", "sh", "counts"):
        key.text(name).tensor(getattr(splat, name))
    add_model(key, model)
    add_vae(key, vae)
    return key.hexdigest()


def run(
    model: Any,
    vae: Any,
    prompt: PromptBundle,
    splat: Types.SPLAT,
    config: OptimizeConfig,
    renderer: str,
    node_id: str | None,
) -> OptimizationState:
    """Go on from the stored state, or from the splat, to `config.steps`; saved at the end and when cancelled.

    Call outside inference mode.
    """
    device = model.load_device
    start = one_from_splat(splat)
    backend = resolve_backend(renderer, device)
    store = RunStore(run_key(model, vae, prompt, splat, config, backend))
    state = store.load(config.steps, config.learning_rates, device)
    if state is None:
        state = OptimizationState.create(start.to(device), config.learning_rates)
    if state.step >= config.steps:
        return state
    saved, saved_at = None, time.monotonic()
    progress = Progress(config.steps, state.step, node_id, backend)
    with loaded_teacher(model, vae, views=config.views, resolution=config.resolution, sizes=prompt.sizes) as (
        teacher,
        one_by_one,
    ):
        config = replace(config, recompute_encoder=config.recompute_encoder or one_by_one)
        prompts = on_device(prompt.views, device)
        try:
            for report in optimize(state, teacher, prompts, config, backend):
                progress.update(report, state.gaussians)
                if time.monotonic() - saved_at > SAVE_EVERY:
                    saved, saved_at = store.save(state, replaces=saved), time.monotonic()
                mm.throw_exception_if_processing_interrupted()
        except mm.InterruptProcessingException:  # between two steps, or before one changed anything
            if state.step > 0:
                store.save(state, replaces=saved)
            raise
    store.save(state, replaces=saved)
    return state


class DreamerXLOptimize(io.ComfyNode):
    """SPLAT from a prompt, by score distillation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def override(name: str, high: int, step: int, tip: str) -> io.Input:
            return io.Int.Input(name, default=0, min=0, max=high, step=step, tooltip=f"{tip} 0: the preset's value.")

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
                    tooltip="Everything that is not set here. official: the released code. paper: its text. fast: a "
                    "third of the steps at 768 pixels. starter: for the built-in checkpoint.",
                ),
                override("steps", 1_000_000, 1, "Optimisation steps. 80 to 150 for the starter, 800 to 2500 for SDXL."),
                override("views", 64, 1, "Views per step. 2 to 4; more is slower and smoother."),
                override("resolution", 2048, 64, "Pixels per side, a multiple of 64. 1024 for SDXL."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of cameras, timesteps and noise. Any whole number.",
                ),
                wired(DreamerGuidance, "guidance", "Method and timesteps."),
                wired(DreamerClip, "clip", "Pixel-by-pixel gradient clipping."),
                wired(DreamerCameras, "cameras", "Cameras and backgrounds."),
                wired(DreamerDensity, "density", "Growing and pruning."),
                io.Int.Input(
                    "final_views",
                    default=8,
                    min=1,
                    max=240,
                    optional=True,
                    advanced=True,
                    tooltip="Pictures around the finished object in the IMAGE output.",
                ),
                io.Combo.Input(
                    "renderer",
                    options=list(RENDERERS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="auto: gsplat on CUDA, else numba. torch is the slow reference.",
                ),
            ],
            outputs=[
                io.Splat.Output(display_name="splat", tooltip="The finished object."),
                io.Image.Output(display_name="views", tooltip="The object from all around, on white."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, resolution: int | None = None, preset: str | None = None) -> bool | str:
        if preset is not None and preset not in PRESETS:
            return f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}"
        return validated(
            cls,
            {"resolution": resolution},
            lambda: build_config("official", {"resolution": resolution or 0}, None, None, None, None),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        prompt: PromptBundle,
        splat: Types.SPLAT,
        preset: str,
        steps: int,
        views: int,
        resolution: int,
        seed: int,
        guidance: GuidanceConfig | None = None,
        clip: ClipConfig | None = None,
        cameras: CameraSettings | None = None,
        density: DensityConfig | None = None,
        final_views: int = 8,
        renderer: str = "auto",
    ) -> io.NodeOutput:
        numbers = {"steps": steps, "views": views, "resolution": resolution, "seed": seed}
        with errors_named(NAME), torch.inference_mode(False), torch.enable_grad():
            check_model(model)
            config = build_config(preset, numbers, guidance, clip, cameras, density)
            state = run(model, vae, prompt, splat, config, renderer, cls.hidden.unique_id)
            gaussians = state.gaussians.detach()
            white = torch.ones(3, device=gaussians.device)
            orbit = turntable(final_views, min(config.resolution, 1024), elevation=15.0)
            return io.NodeOutput(to_splat(gaussians), views_image(gaussians, orbit, white, renderer))
