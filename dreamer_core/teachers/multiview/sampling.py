"""Views of one object drawn at once by DDIM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...guidance.base import GuidanceConditioning, guided_noise
from ..moves import euler_step
from ..teacher import Teacher


def sample_group(
    teacher: Teacher,  # of a group, `GroupTeacher.grouped`
    cond: GuidanceConditioning,  # of V views
    x: Tensor,  # [V, C, h, w] VE latents at the first of the levels
    levels: Sequence[float],
    scale: float,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Tensor:  # [V, C, h, w]
    """Latents at the last of the noise levels, by DDIM with classifier-free guidance (2010.02502; eta = 0).

    `on_step(done, of)` is called after every step.
    """
    with torch.no_grad():
        for done, (now, after) in enumerate(pairwise(levels), 1):
            eps, _, _ = guided_noise(teacher, x, now, cond, scale)
            x = euler_step(x, eps, now, after)
            on_step(done, len(levels) - 1)
    return x
