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
from ..dreamer_core.errors import InputError
from ..dreamer_core.guidance.clipping import ClipConfig
from ..dreamer_core.optimize import (
    PRESETS,
    CleanupConfig,
    DensityConfig,
    GuidanceConfig,
    OptimizationState,
    OptimizeConfig,
    RegularizerConfig,
    clean,
    optimize,
)
from ..dreamer_core.optimize.memory import MODES
from ..dreamer_core.prompts import ViewPrompts
from ..dreamer_core.rendering import resolve_backend
from .cleanup import described
from .host.identity import Key, add_model, add_vae
from .host.images import views_image
from .host.progress import Progress, say
from .host.results import view_ui
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
    DreamerRegularizers,
    PromptBundle,
    errors_named,
    validated,
)

NAME = "Dreamer XL Optimize"
RENDERERS = ("auto", "gsplat", "numba", "torch")
CLEANUP = ("preset", "on", "off")
SAVE_EVERY = 120.0
"""Seconds between two saves of a running optimisation."""


def build_config(
    preset: str,
    numbers: dict[str, int],
    guidance: GuidanceConfig | None,
    clip: ClipConfig | None,
    cameras: CameraSettings | None,
    density: DensityConfig | None,
    *,
    regularizers: RegularizerConfig | None = None,
    shares: dict[str, float] | None = None,
    memory: str = "auto",
    cleanup: str = "preset",
) -> OptimizeConfig:
    """The preset, with what is wired, numbers that are not 0 and shares that are not negative. Errors: InputError."""
    given: dict[str, Any] = {k: v for k, v in numbers.items() if v or k == "seed"}
    given |= {k: v for k, v in (shares or {}).items() if v >= 0}
    wired = {"guidance": guidance, "clip": clip, "density": density, "regularizers": regularizers}
    for name, value, options in (("memory", memory, MODES), ("cleanup", cleanup, CLEANUP)):
        if value not in options:
            raise InputError(name, f"one of {', '.join(options)}", value)
    if memory != "auto":
        given["memory"] = memory
    if cleanup != "preset":
        given["cleanup"] = CleanupConfig(enabled=cleanup == "on")
    given |= {k: v for k, v in wired.items() if v is not None}
    if cameras is not None:
        given |= {"cameras": cameras.orbit, "background": cameras.background}
    # Fewer or more steps keep the preset's schedule, so that a run can be extended.
    return replace(PRESETS[preset], **given)


def on_device(prompts: ViewPrompts, device: torch.device) -> ViewPrompts:
    """Ordinary tensors on the teacher's device."""
    found = {f.name: getattr(prompts, f.name) for f in fields(prompts)}
    moved: dict[str, Any] = {
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
    state_only: dict[str, Any] = {"recompute_encoder": False, "memory": "auto", "cleanup": CleanupConfig()}
    key.text(replace(config, steps=1, **state_only), sorted(prompt.sizes.items()))
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
    workflow: str | None = None,
) -> OptimizationState:
    """Go on from the stored state, or from the splat, to `config.steps`; saved at the end and when cancelled.

    Call outside inference mode.
    """
    if config.guidance.method == "sds_bridge" and prompt.views.artefact is None:
        raise InputError("prompt", "words for artefacts, which sds_bridge needs", "none", "see Dreamer XL Prompt")
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
    progress = Progress(config.steps, state.step, node_id, backend, workflow)
    size: dict[str, Any] = {"views": config.views, "resolution": config.resolution, "sizes": prompt.sizes}
    with loaded_teacher(model, vae, **size, memory=config.memory) as (teacher, one_by_one):
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
    progress.close()
    return state


class DreamerXLOptimize(io.ComfyNode):
    """SPLAT from a prompt, by score distillation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def override(name: str, high: int, step: int, tip: str) -> io.Input:
            return io.Int.Input(name, default=0, min=0, max=high, step=step, tooltip=f"{tip} 0: the preset's value.")

        def share(name: str, high: float, tip: str) -> io.Input:
            return io.Float.Input(
                name,
                default=-1.0,
                min=-1.0,
                max=high,
                step=0.01,
                tooltip=f"{tip} -1: the preset's value.",
                optional=True,
                advanced=True,
            )

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
                    "third of the steps at 768 pixels. low_vram: for cards of 12 GB. starter: for the built-in "
                    "checkpoint.",
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
                    tooltip="Pictures around the finished object in the IMAGE output. 4 to 24.",
                ),
                io.Combo.Input(
                    "renderer",
                    options=list(RENDERERS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="auto: gsplat on CUDA, else numba. torch is the slow reference.",
                ),
                wired(DreamerRegularizers, "regularizers", "Smoothness and the size of the Gaussians."),
                share("depth_share", 1.0, "Share of the steps that look at depth instead of colour. 0 to 0.3."),
                share("scale_noise", 1.0, "Random change of sizes in every step, as a share. 0 to 0.2."),
                io.Combo.Input(
                    "memory",
                    options=list(MODES),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="low: compute twice instead of keeping, slower. high: keep everything. auto: the preset's, "
                    "or what fits. The result is the same.",
                ),
                io.Combo.Input(
                    "cleanup",
                    display_name="clean up",
                    options=list(CLEANUP),
                    default="preset",
                    optional=True,
                    advanced=True,
                    tooltip="Remove invisible Gaussians and floaters at the end. preset: all but official, paper do.",
                ),
            ],
            outputs=[
                io.Splat.Output(display_name="splat", tooltip="The finished object."),
                io.Image.Output(display_name="views", tooltip="The object from all around, on white."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
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
        regularizers: RegularizerConfig | None = None,
        depth_share: float = -1.0,
        scale_noise: float = -1.0,
        memory: str = "auto",
        cleanup: str = "preset",
    ) -> io.NodeOutput:
        numbers = {"steps": steps, "views": views, "resolution": resolution, "seed": seed}
        with errors_named(NAME), torch.inference_mode(False), torch.enable_grad():
            check_model(model)
            shares = {"depth_share": depth_share, "scale_noise": scale_noise}
            more: dict[str, Any] = {"regularizers": regularizers, "shares": shares, "memory": memory}
            more["cleanup"] = cleanup
            config = build_config(preset, numbers, guidance, clip, cameras, density, **more)
            workflow = ((cls.hidden.extra_pnginfo or {}).get("workflow") or {}).get("id")
            state = run(model, vae, prompt, splat, config, renderer, cls.hidden.unique_id, workflow)
            gaussians, removed = clean(state.gaussians.detach(), config.cleanup)
            if config.cleanup.enabled:
                say(f"{len(gaussians):,} Gaussians · {described(removed)}", cls.hidden.unique_id)
            white = torch.ones(3, device=gaussians.device)
            orbit = turntable(final_views, min(config.resolution, 1024), elevation=15.0)
            pictures = views_image(gaussians, orbit, white, renderer)
            return io.NodeOutput(to_splat(gaussians), pictures, ui=view_ui([(gaussians, pictures)]))
