"""What one step tells: plain numbers, and the seconds of its phases."""

from __future__ import annotations

import time
from dataclasses import dataclass

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
    at_once: int | None = None
    """So many views at a time, because memory had run out; None: all."""
    group: bool = False
    """Whether it looked at a multi-view teacher's group of views."""

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


class Stopwatch:
    """Seconds by phase; on CUDA kernels run on, so a phase holds what its last synchronisation waited for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Count the time since the last lap under `phase`."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
