"""What the nodes that optimise share: their settings, the stored run, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.cameras import turntable
from ..dreamer_core.editing.work import Work
from ..dreamer_core.errors import InputError
from ..dreamer_core.evaluation.best_of import best_trial, judge_trial, trial_length
from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.guidance import Method
from ..dreamer_core.optimize import PRESETS, OptimizeConfig, Recipe, StepReport
from ..dreamer_core.optimize.identity import Identity
from ..dreamer_core.optimize.presets import STARTER_SIDES, unread
from ..dreamer_core.optimize.profiles import Fitted, fitted
from ..dreamer_core.optimize.run import Run
from ..dreamer_core.optimize.views import views_at_most
from ..dreamer_core.prompts import ViewPrompts, unread_words
from ..dreamer_core.rendering import RENDERER_NAMES, RENDERERS, resolve_backend
from ..dreamer_core.settings import Setting
from ..dreamer_core.teachers.teacher import Conditioning
from .host.identity import Key, add_model, add_vae
from .host.images import views_image
from .host.kind import kind_of
from .host.multiview import attached, azimuths_of
from .host.progress import Progress, say
from .host.sdxl import guidance_patches, loaded_teacher, sampling_patches
from .host.splat import one_from_splat
from .host.store import RunStore
from .sockets import PromptBundle
from .widgets import Config, Overrides, on_preset, settings_of

CHANGING = "not resumable: something in the model changes while it runs"
NUMBERS = ("steps", "views", "resolution")


def top_level() -> dict[str, Setting]:
    """The settings that no settings node holds, by name."""
    return {setting.field: setting for setting in settings_of("")}


def final_views_input() -> io.Input:
    """How many pictures of the finished object the IMAGE output holds."""
    return io.Int.Input(
        "final_views",
        default=8,
        min=1,
        max=240,
        optional=True,
        advanced=True,
        tooltip="Pictures around the finished object in the IMAGE output. 4 to 24.",
    )


def renderer_input() -> io.Input:
    """Which rasterizer draws."""
    return io.Combo.Input(
        "renderer",
        options=list(RENDERER_NAMES),
        default="auto",
        optional=True,
        advanced=True,
        tooltip="auto: the first of the others that works here. "
        + " ".join(f"{renderer.name}: {renderer.purpose}." for renderer in RENDERERS),
    )


def pictures_around(gaussians: Gaussians, count: int, resolution: int, renderer: str) -> torch.Tensor:
    """`count` pictures [V, H, W, 3] of an object from all around, on white, at 1024 pixels at most."""
    orbit = turntable(count, min(resolution, 1024), elevation=15.0)
    return views_image(gaussians, orbit, torch.ones(3, device=gaussians.device), renderer)


def workflow_of(hidden: Any) -> str | None:
    """The id of the workflow that a node runs in, from its hidden inputs."""
    return ((hidden.extra_pnginfo or {}).get("workflow") or {}).get("id")


def build_config(preset: str, *given: Overrides | None) -> OptimizeConfig:
    """The preset with what was touched, and that alone. Errors: InputError."""
    if preset not in PRESETS:
        raise InputError("preset", f"one of {', '.join(PRESETS)}", preset)
    # Fewer or more steps keep the preset's schedule, so that a run can be extended.
    return on_preset(preset, *given)


def on_device(prompts: ViewPrompts, device: torch.device) -> ViewPrompts:
    """Ordinary tensors, the tokens on the teacher's device.

    Pooled embeddings stay on the processor: there ComfyUI puts them together with the sizes, and fetching them from a
    GPU would wait for it at every call.
    """

    def moved(cond: Conditioning) -> Conditioning:
        pooled = None if cond.pooled is None else cond.pooled.cpu().clone()
        return Conditioning(cond.tokens.to(device).clone(), pooled)

    found = {f.name: getattr(prompts, f.name) for f in fields(prompts)}
    new: dict[str, Any] = {name: moved(value) for name, value in found.items() if isinstance(value, Conditioning)}
    return replace(prompts, **new)


def run_name(
    model: Any, vae: Any, prompt: PromptBundle, splat: Types.SPLAT, recipe: Recipe, backend: str,
    work: Work | None = None,
) -> tuple[str | None, str]:  # fmt: skip
    """What names a run: everything that decides its state at a step. And what to tell the user about it.

    None where something of it cannot be identified, so that no run is ever taken for another.
    """
    key = Key().add("the prompt", (prompt.views, sorted(prompt.sizes.items())))
    for name in ("positions", "scales", "rotations", "opacities", "sh", "counts"):
        key.text(name).tensor(getattr(splat, name))
    if work is not None:
        key.add("the words for what is", work.original.source).add("the region", work.free)
    add_model(key, model)
    add_vae(key, vae)
    content = key.content()
    machine = {"renderer": backend, "device": model.load_device.type}
    identity = Identity(recipe, {**machine, "content": content.name})
    return (None if content.name is None else identity.key), content.note


def without_effect(method: Method, model: Any) -> str:
    """What of the MODEL's patches takes no part, for the user; empty where all do."""
    found = sampling_patches(model)
    if found:
        found = [f"no effect, there is no sampling loop: {', '.join(found)}"]
    if not method.combines and (names := guidance_patches(model.model_options)):
        found.append(f"no effect, {method.name} combines no predictions: {', '.join(names)}")
    return " · ".join(found)


def fitted_to(model: Any, config: Config, hidden: Any, *given: Overrides | None) -> tuple[Config, Fitted]:
    """The settings for what the MODEL is, as far as nobody `given` them; `hidden` has the graph and the node."""
    names = [name for one in given for name in one or ()]
    return fitted(config, kind_of(model, hidden.dynprompt, hidden.unique_id), names)


def joined(*texts: str) -> str:
    """What the user should know, in one line."""
    return " · ".join(filter(None, texts))


def without_use(config: OptimizeConfig, base: OptimizeConfig, *given: Overrides | None) -> str:
    """Which of the settings that people touched on `base` have no effect, and why; empty where all have."""
    found = unread(config, base, [name for one in given for name in one or ()])
    return no_effect(found)


def no_effect(found: Mapping[str, str]) -> str:
    """Settings that do nothing -> why, in one line."""
    return ", ".join(f"no effect: {name} ({why})" for name, why in found.items())


def height_note(prompt: PromptBundle, preset: str) -> str:
    """That the starter's words for the height meet another preset, or its preset lacks them; empty where all fits."""
    begin = prompt.views.blending.overhead_from
    if preset == "starter" and prompt.views.overhead is None:
        return (
            f"the prompt does not tell the height, which the starter's captions do; set overhead to "
            f"{STARTER_SIDES['overhead']!r} in Dreamer XL Prompt, from {STARTER_SIDES['overhead_from']:g} to "
            f"{STARTER_SIDES['overhead_to']:g} degrees"
        )
    if preset == "starter" or prompt.views.overhead is None or begin >= 0:
        return ""
    return (
        f"the prompt says overhead of cameras from {begin:g} degrees up, as the starter's captions do; empty overhead "
        "in Dreamer XL Prompt for another checkpoint"
    )


def multiview_note(config: OptimizeConfig, model: Any, given: Iterable[str]) -> str:
    """What of a multi-view adapter and its settings does nothing; empty where all does something."""
    adapter, used = attached(model) is not None, max(config.multiview_share) > 0
    if adapter and not used:
        return (
            "the MODEL's multi-view adapter is not used: multiview_share is 0 (the presets fast and multiview have it)"
        )
    useless = [name for name in given if name.startswith("multiview_")]
    if useless and not (adapter and used):
        return f"no effect: {useless[0]} (the MODEL has no multi-view adapter)"
    return ""


def run(
    model: Any,
    vae: Any,
    prompt: PromptBundle,
    splat: Types.SPLAT,
    config: OptimizeConfig,
    renderer: str,
    node_id: str | None,
    workflow: str | None = None,
    known: str = "",
    work: Work | None = None,
) -> tuple[Run, str]:
    """Go on from the stored state, or from the splat, to `config.steps`; saved at the end and when cancelled.

    `work` is of a splat that is changed; it knows the words for what is. Also gives what the user should know of it,
    with what is `known` before, or "". Call outside inference mode.
    """
    method = config.guidance.method
    if method.needs_artefacts and prompt.views.artefact is None:
        raise InputError("prompt", f"words for artefacts, which {method.name} needs", "none", "see Dreamer XL Prompt")
    device = model.load_device
    backend = resolve_backend(renderer, device)
    start = one_from_splat(splat) if work is None else None
    inputs = (model, vae, prompt, splat, config.recipe, backend, work)
    name, note = run_name(*inputs)
    words = unread_words(prompt.views.blending, method, prompt.views.artefact is not None)
    known = joined(known, without_effect(method, model), no_effect(words))
    note = joined(note, known)
    if note:
        say(note, node_id)
    store = RunStore(name)
    made = Run.begin(config, store, start, device, work)
    if made.finished:
        return made, note
    place = None if work is None else work.placement.back
    progress = Progress(config.steps, made.state.step, node_id, backend, workflow, note, place)

    def on_step(report: StepReport) -> None:
        progress.update(report, made.shown())
        mm.throw_exception_if_processing_interrupted()

    size: dict[str, Any] = {
        "views": views_at_most(config, azimuths_of(model)),
        "resolution": config.resolution,
        "sizes": prompt.sizes,
    }
    try:
        with loaded_teacher(model, vae, **size, memory=config.memory) as (teacher, one_by_one):
            made.config = replace(config, recompute_encoder=config.recompute_encoder or one_by_one)
            if work is not None and isinstance(work.original.source, ViewPrompts):
                made.work = work.with_source(on_device(work.original.source, device))
            made.go(teacher, on_device(prompt.views, device), backend, on_step)
    finally:
        if name is not None and run_name(*inputs)[0] != name:
            store.forget()
            note = joined(CHANGING, known)
            say(note, node_id)
    progress.close()
    return made, note


def best_seed(
    model: Any,
    vae: Any,
    prompt: PromptBundle,
    splat: Types.SPLAT,
    config: OptimizeConfig,
    count: int,
    trial_steps: int,
    renderer: str,
    node_id: str | None,
    workflow: str | None,
) -> tuple[OptimizeConfig, str]:
    """The configuration with the seed whose trial the teacher likes best, and what to tell of it.

    Every trial is a run that is stored like any other, so the best one goes on from its state.
    """
    if count == 1:
        return config, ""
    steps = trial_length(config.steps, trial_steps)
    device, found = model.load_device, []
    size: dict[str, Any] = {"views": 1, "resolution": config.resolution, "sizes": prompt.sizes}
    seeds = [(config.seed + i) % 2**64 for i in range(count)]
    for i, seed in enumerate(seeds, 1):
        trial = replace(config, seed=seed, steps=steps)
        made, _ = run(model, vae, prompt, splat, trial, renderer, node_id, workflow, f"trial {i} of {count}")
        gaussians = made.state.gaussians.detach()
        with loaded_teacher(model, vae, **size, memory=config.memory) as (teacher, _):
            views = on_device(prompt.views, device)
            found.append(judge_trial(teacher, views, gaussians, config.resolution, resolve_backend(renderer, device)))
    best = best_trial(found)
    values = ", ".join(f"{m.name} {m.value:.2f}" for m in found[best])
    return replace(config, seed=seeds[best]), f"seed {seeds[best]}, best of {count}: {values}"
