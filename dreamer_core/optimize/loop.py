"""The optimiser loop: a generator of step reports. It does no I/O and knows no host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras, sample_orbit
from ..diffusion.moves import offset_noise
from ..diffusion.predictor import NoisePredictor
from ..errors import DivergenceError
from ..gaussians import Gaussians
from ..guidance import (
    GuidanceConditioning,
    GuidanceResult,
    Timesteps,
    asd,
    csd,
    ism,
    sdi,
    sds,
    sds_bridge,
    tsm,
)
from ..guidance.clipping import clip_depth_gradient, clip_pixel_gradient
from ..prompts import PromptProcessor
from ..rendering import RenderOutput, render
from . import density
from .config import BackgroundConfig, GuidanceConfig, OptimizeConfig
from .encoding import EncodedImages
from .memory import used_bytes
from .randomness import global_seed, step_generator
from .regularizers import normalized_disparity, scene_terms, total_variation
from .state import OptimizationState

MAX_BAD_STEPS = 10
"""So many steps in a row with NaN or inf in the gradient end the run."""

PHASES = ("cameras", "render", "encode", "guidance", "encode_backward", "clip", "render_backward", "update")
"""What the seconds of a step are counted under."""


@dataclass(frozen=True)
class StepReport:
    """What one step did; plain numbers only."""

    step: int
    """0 for the first step."""
    t: int
    s: int
    gradient_norm: float
    """Norm of the latent gradient, lambda included, over the whole batch."""
    image_gradient_norm: float
    """Norm of the gradient that reaches the rendered image, before clipping."""
    clipped: float
    """Share of pixels whose gradient was clipped."""
    gaussians: int
    """After density control."""
    depth: bool
    """Whether disparity was encoded instead of colour."""
    nonfinite: int
    """Elements of the latent and image gradients that were NaN or inf, and were zeroed."""
    regularizers: dict[str, float]
    """Weighted values of the regularisers that are on."""
    network_calls: int
    network_evaluations: int
    """Per view."""
    seconds: dict[str, float]
    """By phase, see `PHASES`."""
    memory: int
    """Bytes: the most that the GPU had allocated so far, or what the process holds now."""

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


class _Stopwatch:
    """Seconds by phase; on CUDA kernels run on, so a phase holds what its last synchronisation waited for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


def sample_timesteps(config: GuidanceConfig, step: int, generator: torch.Generator, progress: float = 0.0) -> Timesteps:
    """t uniform in `t_range`, widened during the warm-up, and s = max(t - delta, 0).

    With `t_annealing` t is given by `progress` in [0, 1] through the schedule.
    """
    w = config.warmup(step)
    if config.t_annealing is not None:
        first, last = config.t_annealing
        t = round(first + (last - first) * progress)
    else:
        low, high = config.t_range
        high = min(high + int(w * config.t_widening), 999)
        t = int(torch.randint(low, high + 1, (1,), generator=generator))
    return Timesteps(t=t, s=max(t - (config.delta + int(w * config.delta_widening)), 0))


def sample_backgrounds(config: BackgroundConfig, views: int, generator: torch.Generator) -> Tensor:
    """Background colours [views, 3]."""
    choice = torch.rand(views, 1, generator=generator)
    color = torch.rand(views, 3, generator=generator)
    color = torch.where(choice < config.white, torch.ones_like(color), color)
    black = (choice >= config.white) & (choice < config.white + config.black)
    return torch.where(black, torch.zeros_like(color), color)


def guidance_gradient(
    predictor: NoisePredictor,
    z: Tensor,  # [B, 4, h, w]
    noise: Tensor,  # [B, 4, h, w]
    steps: Timesteps,
    cond: GuidanceConditioning,
    config: GuidanceConfig,
    progress: float,
) -> GuidanceResult:
    """The latent gradient of the configured method, without the factor lambda; `progress` in [0, 1] of the schedule."""
    given = (predictor, z, noise, steps, cond)
    match config.method:
        case "tsm":
            return tsm(*given, cfg=config.cfg, gamma=config.gamma, stride=config.stride)
        case "ism":
            return ism(*given, cfg=config.cfg, stride=config.stride)
        case "sds":
            return sds(*given, cfg=config.cfg)
        case "csd":
            return csd(*given, progress=progress, last_empty=config.csd_empty)
        case "sdi":
            return sdi(
                *given,
                cfg=config.cfg,
                inversion_steps=config.sdi_steps,
                inversion_cfg=config.sdi_cfg,
                extra_noise=config.sdi_noise,
            )
        case "asd":
            return asd(*given, cfg=config.cfg, t_min=config.t_range[0], shift=config.asd_shift)
        case "sds_bridge":
            return sds_bridge(*given, scale=config.cfg)


def _zero_nonfinite(gradient: Tensor) -> tuple[Tensor, int]:
    bad = ~torch.isfinite(gradient)
    count = int(bad.sum())
    return (gradient.masked_fill(bad, 0.0) if count else gradient), count


def _noisy(gaussians: Gaussians, amount: float, generator: torch.Generator) -> Gaussians:
    """Scales times 1 + N(0, amount), kept positive."""
    if amount <= 0:
        return gaussians
    factor = 1.0 + amount * torch.randn(gaussians.log_scales.shape, generator=generator)
    return gaussians.with_log_scales(gaussians.log_scales + factor.clamp_min(1e-6).log().to(gaussians.device))


def _disparity(output: RenderOutput, cameras: Cameras) -> Tensor:
    assert output.depth_sums is not None
    return normalized_disparity(output.depth_sums, output.alphas, cameras.fov)


def train_step(
    state: OptimizationState,
    predictor: NoisePredictor,
    prompts: PromptProcessor,
    config: OptimizeConfig,
    renderer: str = "auto",
) -> StepReport:
    """One step: cameras, render, encode, guide, clip, back-propagate, Adam, density control."""
    watch, step = _Stopwatch(), state.step
    device = state.params["means"].device

    def generator(purpose: str) -> torch.Generator:
        return step_generator(config.seed, step, purpose)

    # Views.
    pool = None
    if config.cameras.fov_pool > 0:
        pool = step_generator(config.seed, step // config.cameras.fov_pool, "fov")
    orbit = config.cameras
    cameras = sample_orbit(orbit, config.views, config.resolution, step, generator("cameras"), pool).to(device)
    backgrounds = sample_backgrounds(config.background, config.views, generator("background")).to(device)
    choices = torch.rand(2, generator=generator("choices")).tolist()
    depth_step, flip = choices[0] < config.depth_share, choices[1] < config.guidance.flip
    weights = config.regularizers
    with_depth = depth_step or weights.tv_disparity > 0
    scene = _noisy(state.gaussians, config.scale_noise, generator("scales"))
    watch.lap("cameras")
    output = render(scene, cameras, backgrounds=backgrounds, depth=with_depth, depth_gradient=False, backend=renderer)
    disparity = _disparity(output, cameras) if with_depth else None
    watch.lap("render")

    # Latents.
    color_leaf = output.colors.detach().requires_grad_(True)
    disparity_leaf = disparity.detach().requires_grad_(True) if disparity is not None else None
    if depth_step:
        assert disparity_leaf is not None
        images = disparity_leaf.expand(-1, -1, -1, 3)
    else:
        images = color_leaf
    encoded = EncodedImages(predictor, images.flip(2) if flip else images, recompute=config.recompute_encoder)
    watch.lap("encode")

    # Guidance: no graph.
    progress = min(step / config.schedule_steps, 1.0)
    steps = sample_timesteps(config.guidance, step, generator("timestep"), progress)
    noise = offset_noise(encoded.z.shape, config.guidance.offset_noise, generator("noise")).to(encoded.z)
    with torch.no_grad():
        result = guidance_gradient(predictor, encoded.z, noise, steps, prompts.at(cameras), config.guidance, progress)
        gradient, nonfinite = _zero_nonfinite(config.guidance.weight * result.gradient.to(encoded.z))
    watch.lap("guidance")

    # Down to the images, where clipping happens.
    encoded.backward(gradient)
    watch.lap("encode_backward")
    image_terms: dict[str, Tensor] = {}
    if weights.tv_rgb > 0:
        image_terms["tv_rgb"] = weights.tv_rgb * total_variation(color_leaf)
    if disparity_leaf is not None and weights.tv_disparity > 0:
        image_terms["tv_disparity"] = weights.tv_disparity * total_variation(disparity_leaf)
    for term in image_terms.values():
        term.backward()
    tensors: list[Tensor] = []
    gradients: list[Tensor | None] = []
    clipped = image_norm = torch.zeros(())
    if color_leaf.grad is not None:
        image_gradient, bad = _zero_nonfinite(color_leaf.grad)
        nonfinite += bad
        image_norm = image_gradient.norm()
        threshold = config.clip.threshold_at(step)
        image_gradient, clipped = clip_pixel_gradient(image_gradient, threshold, config.clip.mode)
        tensors.append(output.colors)
        gradients.append(image_gradient)
    if disparity is not None and disparity_leaf is not None and disparity_leaf.grad is not None:
        map_gradient, bad = _zero_nonfinite(disparity_leaf.grad)
        nonfinite += bad
        if depth_step:
            image_norm = map_gradient.norm()
            limit = config.clip.depth_factor * scene.scales.detach().mean()
            map_gradient, clipped = clip_depth_gradient(map_gradient, limit, config.clip.depth_mode)
        tensors.append(disparity)
        gradients.append(map_gradient)
    regularizers = scene_terms(state.gaussians, weights)
    tensors += regularizers.values()
    gradients += [None] * len(regularizers)

    watch.lap("clip")

    # Into the Gaussians.
    density.retain_gradient(output.info)
    torch.autograd.backward(tensors, gradients)
    watch.lap("render_backward")

    state.updating = True
    state.set_rates(config.learning_rates, config.schedule_steps)
    for optimizer in state.optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with global_seed(config.seed, step, "density", device):
        density.refine(
            state.params,
            state.optimizers,
            state.density,
            step,
            output.info,
            config.density,
            config.learning_rates.at("means", step, config.schedule_steps),
        )
    state.step = step + 1
    state.bad_steps = state.bad_steps + 1 if nonfinite else 0
    state.updating = False
    report = StepReport(
        step=step,
        t=steps.t,
        s=steps.s,
        gradient_norm=float(gradient.norm()),
        image_gradient_norm=float(image_norm),
        clipped=float(clipped),
        gaussians=len(state.params["means"]),
        depth=depth_step,
        nonfinite=nonfinite,
        regularizers={name: float(term.detach()) for name, term in {**image_terms, **regularizers}.items()},
        network_calls=result.calls,
        network_evaluations=result.samples,
        seconds=watch.seconds,
        memory=used_bytes(device),
    )
    watch.lap("update")
    return report


def optimize(
    state: OptimizationState,
    predictor: NoisePredictor,
    prompts: PromptProcessor,
    config: OptimizeConfig,
    renderer: str = "auto",
) -> Iterator[StepReport]:
    """Steps until `config.steps` are made, one report each; `state` changes in place.

    A state that has made some steps goes on from there, with the result of a run that never stopped.
    Errors: DivergenceError after ten steps in a row with NaN or inf; RuntimeError when no Gaussian is left.
    """
    while state.step < config.steps:
        report = train_step(state, predictor, prompts, config, renderer)
        yield report
        if state.bad_steps >= MAX_BAD_STEPS:
            raise DivergenceError(
                f"{MAX_BAD_STEPS} steps in a row had NaN or inf in the gradient (last at step {report.step}); "
                "run the VAE in float32, use another VAE (SDXL's own overflows in float16), or lower the guidance scale"
            )
        if report.gaussians == 0:
            raise DivergenceError(
                f"density control removed every Gaussian at step {report.step}; lower density.prune_opacity, "
                "raise density.prune_scale, or switch density control off"
            )
