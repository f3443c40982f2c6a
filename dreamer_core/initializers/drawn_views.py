"""The views that a multi-view adapter draws of a prompt: what `views` makes a start of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..prompts import PromptProcessor
from ..settings import Knob, Settings
from ..teacher_preview import sampling_levels
from ..teachers.multiview.cameras import group_cameras
from ..teachers.multiview.group import group_azimuths, grouped
from ..teachers.multiview.sampling import sample_group
from ..teachers.teacher import Teacher


@dataclass(frozen=True)
class DrawnViewsConfig(Settings):
    """How the views are drawn and fitted."""

    sampling_steps: Annotated[int, Knob("DDIM steps of the views. 20 to 50.", 1, 1000, 1)] = 30
    sampling_cfg: Annotated[
        float, Knob("Guidance scale of the views (unitless). 3 to 7; published: 3.", 0.0, 100.0, 0.5)
    ] = 3.0
    fit_steps: Annotated[
        int, Knob("Steps that fit the Gaussians to the views. 200 to 600. 0 keeps the hull.", 0, 10_000, 50)
    ] = 300


def draw_views(
    teacher: Teacher,
    prompts: PromptProcessor,
    *,
    resolution: int,
    config: DrawnViewsConfig | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Tensor:  # [V, C, h, w]
    """Latents of a group's views by DDIM with classifier-free guidance (2010.02502), each from a noise of its own.

    `on_step(done, of)` is called after every step. Errors: TypeError and ValueError for a teacher without an adapter.
    """
    config, azimuths = config or DrawnViewsConfig(), group_azimuths(teacher)
    if azimuths is None:
        raise ValueError("a teacher without a multi-view adapter draws no views of one object")
    group, cond = grouped(teacher, azimuths), prompts.at(group_cameras(azimuths, resolution))
    with torch.no_grad():
        grey = teacher.encode(torch.full((1, resolution, resolution, 3), 0.5))
    levels = sampling_levels(group.sigmas, config.sampling_steps)
    noise = torch.randn(len(azimuths), *grey.shape[1:], generator=torch.Generator().manual_seed(seed))
    return sample_group(group, cond, levels[0] * noise.to(grey), levels, config.sampling_cfg, on_step)
