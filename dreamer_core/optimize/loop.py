"""The optimiser loop: a generator of step reports. It does no I/O and knows no host.

A step goes through phases: draw, render, encode, guide, clip, back-propagate, update. What one hands to the next is a
small dataclass. A run that changes an existing splat has an `Original` beside its state: it is rendered along, anchors
pull towards it, and the gradient may be the difference to what the teacher says of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..editing.anchors import AnchorGradients, Reference, anchor_gradients
from ..editing.delta import delta
from ..editing.original import Original, of_changing
from ..editing.stages import rate_factors
from ..errors import DivergenceError
from ..guidance import GuidanceResult, Timesteps, clip_depth_gradient, clip_pixel_gradient, sample_timesteps
from ..guidance.rescale import with_rescale
from ..prompts import PromptProcessor
from ..teachers.moves import offset_noise
from ..teachers.multiview.group import group_azimuths, grouped
from ..teachers.teacher import Teacher
from . import density
from .apart import at_once_of
from .encoding import EncodedImages
from .memory import used_bytes
from .randomness import global_seed, step_generator
from .recipe import OptimizeConfig, Recipe
from .regularizers import normalized_disparity, scene_terms, total_variation
from .report import StepReport, Stopwatch
from .shortage import Portion, free_caches, is_out_of_memory, parts
from .state import MAX_BAD_STEPS, OptimizationState
from .views import DrawnViews, RenderedViews, draw_group, draw_views, draws_group, render_drawn


class MapLeaves:
    """The rendered maps cut off from their graph, where gradients from above gather before they are clipped."""

    def __init__(self, rendered: RenderedViews) -> None:
        self.colors = rendered.colors.detach().requires_grad_(True)
        disparity = rendered.disparity
        self.disparity = None if disparity is None else disparity.detach().requires_grad_(True)

    def images(self, drawn: DrawnViews) -> Tensor:  # [B, H, W, 3]
        """What is encoded."""
        return encoded_images(self.colors, self.disparity, drawn)


def encoded_images(colors: Tensor, disparity: Tensor | None, drawn: DrawnViews) -> Tensor:  # [B, H, W, 3]
    """Of the maps of a step, what is encoded."""
    images = colors
    if drawn.depth:
        assert disparity is not None
        images = disparity.expand(-1, -1, -1, 3)
    return images.flip(2) if drawn.flip else images


def reference_images(reference: Reference, drawn: DrawnViews) -> Tensor:  # [B, H, W, 3]
    """What is encoded of the incoming splat, beside `MapLeaves.images`."""
    disparity = None
    if drawn.depth:
        assert reference.depth_sums is not None
        disparity = normalized_disparity(reference.depth_sums, reference.alphas, drawn.cameras.fov)
    return encoded_images(reference.colors, disparity, drawn)


@dataclass(frozen=True)
class Guided:
    """What guidance says."""

    gradient: Tensor  # [B, C, h, w], lambda included
    steps: Timesteps
    result: GuidanceResult
    nonfinite: Tensor  # []


@dataclass(frozen=True)
class MapGradients:
    """Clipped gradients of the rendered maps, None where nothing reached one, and figures for the report."""

    colors: Tensor | None  # [B, H, W, 3]
    disparity: Tensor | None  # [B, H, W, 1]
    norm: Tensor  # []
    clipped: Tensor  # []
    nonfinite: Tensor  # []


def guide(
    predictor: Teacher, prompts: PromptProcessor, encoded: EncodedImages, drawn: DrawnViews, config: Recipe,
    step: int, original: Original | None = None, reference: Reference | None = None, at_once: int | None = None,
) -> Guided:  # fmt: skip
    """The latents' gradient by the configured method, for `at_once` views at a time; makes no graph."""
    guidance = config.guidance
    timestep = step_generator(config.seed, step, "timestep")
    progress = config.progress(step)
    steps = sample_timesteps(guidance, step, timestep, progress)
    generator = step_generator(config.seed, step, "noise")
    noise = offset_noise(encoded.z.shape, guidance.noise_offset, generator).to(encoded.z)
    teacher = with_rescale(predictor, guidance.rescale)
    with torch.no_grad():
        method, target = guidance.method_at(progress), prompts.at(drawn.shown)
        source = incoming = None
        if original is not None and original.source is not None and reference is not None:
            incoming = encoded.like(reference_images(reference, drawn))
            source = original.source.at(drawn.shown)

        def of(p: slice) -> GuidanceResult:
            if incoming is None or source is None:
                return method(teacher, encoded.z[p], noise[p], steps, target[p])
            return delta(method, teacher, encoded.z[p], incoming[p], noise[p], steps, target[p], source[p])

        result = GuidanceResult.cat([of(p) for p in parts(len(noise), at_once)])
        gradient, nonfinite = zero_nonfinite(guidance.weight * result.gradient.to(encoded.z))
    return Guided(gradient, steps, result, nonfinite)


def add_image_terms(leaves: MapLeaves, config: Recipe) -> dict[str, Tensor]:
    """Back-propagate the regularisers of the maps into the leaves; their weighted values."""
    weights, terms = config.regularizers, {}
    if weights.tv_rgb > 0:
        terms["tv_rgb"] = weights.tv_rgb * total_variation(leaves.colors)
    if leaves.disparity is not None and weights.tv_disparity > 0:
        terms["tv_disparity"] = weights.tv_disparity * total_variation(leaves.disparity)
    for term in terms.values():
        term.backward()
    return terms


def clip_gradients(leaves: MapLeaves, drawn: DrawnViews, mean_scale: Tensor, config: Recipe, step: int) -> MapGradients:
    """The maps' gradients, clipped: colours always, disparity where it was encoded."""
    colors = disparity = None
    clipped = norm = nonfinite = torch.zeros((), device=leaves.colors.device)
    if leaves.colors.grad is not None:
        colors, nonfinite = zero_nonfinite(leaves.colors.grad)
        norm = colors.norm()
        colors, clipped = clip_pixel_gradient(colors, config.clip.threshold_at(step), config.clip.mode)
    if leaves.disparity is not None and leaves.disparity.grad is not None:
        disparity, bad = zero_nonfinite(leaves.disparity.grad)
        nonfinite = nonfinite + bad
        if drawn.depth:
            norm = disparity.norm()
            limit = config.clip.depth_factor * mean_scale
            disparity, clipped = clip_depth_gradient(disparity, limit, config.clip.depth_mode)
    return MapGradients(colors, disparity, norm, clipped, nonfinite)


def back_propagate(
    state: OptimizationState, rendered: RenderedViews, gradients: MapGradients, config: Recipe,
    anchors: AnchorGradients | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Bring the maps' gradients and the scene's own terms into the parameters; the terms' weighted values."""
    terms = scene_terms(state.gaussians, config.regularizers)
    pairs: list[tuple[Tensor, Tensor | None]] = []
    if gradients.colors is not None:
        pairs.append((rendered.colors, gradients.colors))
    if rendered.disparity is not None and gradients.disparity is not None:
        pairs.append((rendered.disparity, gradients.disparity))
    pairs += [(term, None) for term in terms.values()]
    if anchors is not None:
        maps = ((rendered.colors, anchors.colors), (rendered.alphas, anchors.alphas), (rendered.depths, anchors.depths))
        pairs += [(tensor, gradient) for tensor, gradient in maps if tensor is not None and gradient is not None]
    density.retain_gradients(rendered.infos)
    torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
    return terms


def update(
    state: OptimizationState, rendered: RenderedViews, config: Recipe, nonfinite: int, original: Original | None = None
) -> None:
    """Adam and density control, in place; the step counts when both are done."""
    step = state.step
    factors = None if original is None else rate_factors(original.settings, config.progress(step))
    infos = rendered.infos
    if original is not None:
        infos = [of_changing(info, len(state.params["means"])) for info in infos]
    state.updating = True
    state.descend(config.learning_rates, config.schedule_steps, factors)
    means_rate = config.learning_rates.at("means", step, config.schedule_steps) * (factors or {}).get("means", 1.0)
    with global_seed(config.seed, step, "density", state.params["means"].device):
        density.refine(state.params, state.optimizers, state.density, step, infos, config.density, means_rate)
    state.step = step + 1
    state.bad_steps = state.bad_steps + 1 if nonfinite else 0
    state.good = state.good if nonfinite else None
    state.updating = False


def zero_nonfinite(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient without NaN and inf, and how many there were []; a tensor, so that a GPU need not wait for it."""
    bad = ~torch.isfinite(gradient)
    return gradient.masked_fill(bad, 0.0), bad.sum(dtype=torch.float32)


def read(named: dict[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers, all with one wait for the GPU."""
    values = torch.stack([value.detach().float() for value in named.values()]).tolist()
    return dict(zip(named, values, strict=True))


def train_step(
    state: OptimizationState,
    predictor: Teacher,
    prompts: PromptProcessor,
    config: OptimizeConfig,
    renderer: str = "auto",
    original: Original | None = None,
    at_once: int | None = None,
) -> StepReport:
    """One step: draw, render, encode, guide, clip, back-propagate, Adam and density control.

    `at_once` views are encoded and guided at a time; None: all. A group of views that a multi-view teacher looks at is
    encoded so, too, and never cut when it is guided.
    """
    watch, step = Stopwatch(), state.step
    device = state.params["means"].device
    azimuths = group_azimuths(predictor) if draws_group(config, step) else None
    if azimuths is None:
        teacher, drawn = predictor, draw_views(config, step, device)
    else:
        teacher, drawn = grouped(predictor, azimuths), draw_group(config, azimuths, device)
    watch.lap("cameras")
    scene = state.gaussians if original is None else original.whole(state.gaussians)
    deep = original is not None and original.settings.depth > 0
    rendered = render_drawn(scene, drawn, config, step, renderer, surface=deep)
    reference = None
    if original is not None and original.needs_reference:
        reference = Reference.of(original.incoming, drawn.cameras, drawn.backgrounds, deep or drawn.depth, renderer)
    watch.lap("render")
    leaves = MapLeaves(rendered)
    encoded_at_once = at_once_of(predictor) if config.recompute_encoder else at_once
    encoded = EncodedImages(predictor, leaves.images(drawn), encoded_at_once)
    watch.lap("encode")
    guided_at_once = at_once if azimuths is None else None
    guided = guide(teacher, prompts, encoded, drawn, config, step, original, reference, guided_at_once)
    watch.lap("guidance")
    encoded.backward(guided.gradient)
    watch.lap("encode_backward")
    image_terms = add_image_terms(leaves, config)
    gradients = clip_gradients(leaves, drawn, rendered.mean_scale, config, step)
    anchors = None
    if original is not None and reference is not None:
        threshold = config.clip.threshold_at(step)
        anchors = anchor_gradients(rendered, reference, original.settings, threshold)
    watch.lap("clip")
    terms = {**image_terms, **back_propagate(state, rendered, gradients, config, anchors)}
    if anchors is not None:
        terms |= anchors.off
    watch.lap("render_backward")
    figures = read(
        {
            "gradient_norm": guided.gradient.norm(),
            "image_gradient_norm": gradients.norm,
            "clipped": gradients.clipped,
            "nonfinite": guided.nonfinite + gradients.nonfinite,
            **terms,
        }
    )
    nonfinite = int(figures["nonfinite"])
    if nonfinite and not state.bad_steps:
        state.remember()
    update(state, rendered, config, nonfinite, original)
    watch.lap("update")
    return StepReport(
        step=step,
        t=guided.steps.t,
        s=guided.steps.s,
        gradient_norm=figures["gradient_norm"],
        image_gradient_norm=figures["image_gradient_norm"],
        clipped=figures["clipped"],
        gaussians=len(state.params["means"]),
        depth=drawn.depth,
        nonfinite=nonfinite,
        regularizers={name: figures[name] for name in terms},
        network_calls=guided.result.calls,
        network_evaluations=guided.result.samples,
        seconds=watch.seconds,
        memory=used_bytes(device),
        at_once=at_once,
        group=azimuths is not None,
    )


def fitting_step(
    state: OptimizationState,
    predictor: Teacher,
    prompts: PromptProcessor,
    config: OptimizeConfig,
    renderer: str,
    portion: Portion,
    original: Original | None = None,
) -> StepReport:
    """`train_step`; where memory runs out, once more with half as many views at once, and so from then on.

    A step changes nothing before its update, and draws the same again. Errors: torch.OutOfMemoryError where one view
    at a time is too much, or where memory runs out in the update.
    """
    while True:
        try:
            return train_step(state, predictor, prompts, config, renderer, original, portion.views)
        except Exception as error:
            if state.updating or not is_out_of_memory(error):
                raise
            portion.halve(state.step, error)
        state.drop_gradients()
        free_caches()


def optimize(
    state: OptimizationState,
    predictor: Teacher,
    prompts: PromptProcessor,
    config: OptimizeConfig,
    renderer: str = "auto",
    original: Original | None = None,
) -> Iterator[StepReport]:
    """Steps until `config.steps` are made, one report each; `state` changes in place.

    With an `original`, the state holds those of its Gaussians that may change, and it is on the state's device.
    A state that has made some steps goes on from there, with the result of a run that never stopped.
    Errors: DivergenceError after ten steps in a row with NaN or inf, and when no Gaussian is left;
    torch.OutOfMemoryError where one view at a time is too much.
    """
    portion = Portion(config.views, config.recompute_encoder)
    while state.step < config.steps:
        report = fitting_step(state, predictor, prompts, config, renderer, portion, original)
        yield report
        if state.bad_steps >= MAX_BAD_STEPS:
            raise DivergenceError(
                f"{MAX_BAD_STEPS} steps in a row had NaN or inf in the gradient (last at step {report.step}), and the "
                "last state before them is kept; "
                "run the VAE in float32, use another VAE (SDXL's own overflows in float16), or lower the guidance scale"
            )
        if report.gaussians == 0:
            raise DivergenceError(
                f"density control removed every Gaussian at step {report.step}; lower density.prune_opacity, "
                "raise density.prune_scale, or switch density control off"
            )
