"""What a running optimisation tells the user: a bar, a picture, a line of text."""

from __future__ import annotations

import time
from collections.abc import Callable

import comfy.model_management as mm
import comfy.utils
import torch

from ...dreamer_core.cameras import orbit_cameras
from ...dreamer_core.gaussians import Gaussians
from ...dreamer_core.media import contact_sheet
from ...dreamer_core.optimize import StepReport
from .images import to_pil, views_image
from .snapshots import LiveView

INTERVAL = 0.5
"""Seconds between two updates at least: previews are not throttled by ComfyUI."""
SHARE = 0.1
"""Of the time may go into previews."""
SIZE = 256
"""Pixels per side of each of the preview's two views."""


def counting(total: int) -> Callable[[], None]:
    """To be called after each of `total` parts of the work: moves the node's bar, and lets a cancel through."""
    bar = comfy.utils.ProgressBar(total)

    def tick() -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update(1)

    return tick


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def say(text: str, node_id: str | None) -> None:
    """A line of text on a node."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def memory_note(report: StepReport) -> str:
    """What the user should know about memory; empty where it sufficed."""
    return f" · out of memory: {report.at_once} view(s) at a time" if report.at_once else ""


class Progress:
    """The reporter of one node."""

    def __init__(
        self,
        steps: int,
        start: int,
        node_id: str | None,
        backend: str,
        workflow: str | None = None,
        note: str = "",
        place: Callable[[Gaussians], Gaussians] | None = None,
    ) -> None:
        self._bar = comfy.utils.ProgressBar(steps, node_id=node_id)
        self._live = LiveView(node_id, workflow, place=place)
        self._steps, self._start, self._node_id, self._backend = steps, start, node_id, backend
        self._note = f" · {note}" if note else ""
        self._began = self._last = time.monotonic()
        self._clipped = 0.0
        self._cost = 0.0
        """Seconds that the last preview took."""

    def update(self, report: StepReport, gaussians: Gaussians) -> None:
        """After every step; draws and sends only when it is time."""
        done, now = report.step + 1, time.monotonic()
        weight = 0.1 if report.step > self._start else 1.0
        self._clipped += weight * (report.clipped - self._clipped)
        self._live.update(done, self._steps, gaussians)
        if now - self._last < max(INTERVAL, self._cost / SHARE) and done < self._steps:
            self._bar.update_absolute(done, self._steps)
            return
        self._text(self.line(report, now))
        image = self._draw(gaussians)
        self._bar.update_absolute(done, self._steps, ("JPEG", image, 2 * SIZE))
        self._last = time.monotonic()
        self._cost = self._last - now

    def close(self) -> None:
        """The node is done, and its result takes the place of the live view."""
        self._live.close()

    def line(self, report: StepReport, now: float) -> str:
        """Step, rate, time left, share of clipped pixels (a running mean), number of Gaussians, and the note."""
        done = report.step + 1
        rate = (done - self._start) / max(now - self._began, 1e-6)
        left = duration((self._steps - done) / max(rate, 1e-6))
        speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / max(rate, 1e-6):.1f} s/step"
        clipped = f"{100 * self._clipped:.0f}% clipped"
        found = f"step {done}/{self._steps} · {speed} · {left} left · {clipped} · {report.gaussians:,} Gaussians"
        return found + self._note + memory_note(report)

    def _draw(self, gaussians: Gaussians):  # type: ignore[no-untyped-def]
        cameras = orbit_cameras([25.0, 205.0], 15.0, 3.5, 0.55, SIZE)
        white = torch.ones(3, device=gaussians.device)
        return to_pil(contact_sheet(views_image(gaussians, cameras, white, self._backend), 2))

    def _text(self, text: str) -> None:
        say(text, self._node_id)
