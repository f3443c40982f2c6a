"""Density control by gsplat's strategies; DefaultStrategy (3DGS) made independent of resolution and batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import mcmc
from .density_config import DensityConfig

Params = dict[str, torch.nn.Parameter]
Optimizers = dict[str, torch.optim.Optimizer]


def scaled_threshold(config: DensityConfig, resolution: int) -> float:
    """The 2D-gradient threshold at `resolution`: the published one holds at `reference_resolution`.

    A Gaussian r pixels wide gathers a summed loss over r^2 pixels with colour slopes of 1 / r per pixel, and the
    gradient is then expressed in half image widths: r^2 / r * W, so it grows with the square of the resolution.
    """
    return config.grow_gradient * (resolution / config.reference_resolution) ** 2


def capped_threshold(threshold: float, gradients: Tensor, room: int) -> float:
    """A threshold at least as high that at most `room` of the gradients [N] exceed; each adds one Gaussian."""
    if room <= 0:
        return math.inf
    if gradients.numel() <= room:
        return threshold
    return max(threshold, float(gradients.kthvalue(gradients.numel() - room).values))


@lru_cache(maxsize=1)
def _strategy_class() -> type:
    """gsplat's DefaultStrategy with a cap; made on first use, because gsplat is imported lazily."""
    from gsplat.strategy import DefaultStrategy

    class CappedStrategy(DefaultStrategy):
        """The threshold rises where growth would exceed `max_gaussians`."""

        max_gaussians: int = 0
        grow_grad2d: float

        def _grow_gs(self, params: Params, optimizers: Optimizers, state: dict[str, Any], step: int) -> tuple[int, int]:
            gradients = state["grad2d"] / state["count"].clamp_min(1)
            room = self.max_gaussians - len(params["means"])
            self.grow_grad2d = capped_threshold(self.grow_grad2d, gradients, room)
            return super()._grow_gs(params, optimizers, state, step)

    return CappedStrategy


def refine(
    params: Params,
    optimizers: Optimizers,
    state: dict[str, Any],
    step: int,
    infos: Sequence[dict[str, Any]],
    config: DensityConfig,
    means_rate: float,
) -> None:
    """Gather the statistics of all views, and at refinement steps grow, split, prune and reset, in place.

    `infos` are the renderer's, of one or more renders that together show all views. Call after `backward` with every
    `info["means2d"]` retaining its gradient (`retain_gradients`); `means_rate` is the means' learning rate.
    """
    if not config.enabled:
        return
    if config.strategy == "mcmc":
        mcmc.refine(params, optimizers, step, config, means_rate)
    elif step < config.stop:
        _refine_default(params, optimizers, state, step, _together(infos), config)


def _refine_default(
    params: Params,
    optimizers: Optimizers,
    state: dict[str, Any],
    step: int,
    info: dict[str, Any],
    config: DensityConfig,
) -> None:
    from gsplat.strategy.ops import reset_opa

    strategy = _strategy_class()(
        prune_opa=config.prune_opacity,
        grow_grad2d=scaled_threshold(config, int(info["width"])),
        grow_scale3d=config.split_scale,
        prune_scale3d=config.prune_scale,
        refine_start_iter=config.start,
        refine_stop_iter=config.stop,
        refine_every=config.every,
        # Here only the step after which too large Gaussians are pruned.
        reset_every=config.reset_every if config.reset_every > 0 else max(config.start, 1),
        refine_scale2d_stop_iter=0,  # screen-size pruning is a no-op in the published code
    )
    strategy.max_gaussians = config.max_gaussians
    # gsplat multiplies by n_cameras because it assumes a loss averaged over views; ours is a sum.
    strategy.step_post_backward(params, optimizers, state, step, {**info, "n_cameras": 1})
    # gsplat 1.5.3 never resets: its condition `step % n == 0 & step > 0` is always false.
    if config.reset_every > 0 and step > 0 and step % config.reset_every == 0:
        reset_opa(params, optimizers, state, value=2 * config.prune_opacity)


def initial_state() -> dict[str, Any]:
    """Running statistics as DefaultStrategy keeps them; world units are absolute, so the scene scale is 1."""
    return {"grad2d": None, "count": None, "scene_scale": 1.0}


def retain_gradients(infos: Sequence[dict[str, Any]]) -> None:
    """What DefaultStrategy.step_pre_backward does: keep the gradients of the projected means."""
    for info in infos:
        means2d: Tensor = info["means2d"]
        if means2d.requires_grad:
            means2d.retain_grad()


def _together(infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What DefaultStrategy reads of several renders, as if one had shown all views."""
    if len(infos) == 1:
        return infos[0]
    gradients = [info["means2d"].grad for info in infos]  # each [C, N, 2]
    means2d = torch.cat([info["means2d"].detach() for info in infos])
    means2d.grad = torch.cat([torch.zeros_like(i["means2d"]) if g is None else g for i, g in zip(infos, gradients)])
    return {**infos[0], "means2d": means2d, "radii": torch.cat([info["radii"] for info in infos])}
