"""What the training stages share: a clock, checkpoints that survive an interruption, averages of weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamer_core.files import write_atomically
from dreamer_core.media import contact_sheet, write_png

CPU = torch.device("cpu")


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the old one."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The newest checkpoint, or None to start."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


def save_sheet(images: Tensor, path: Path, columns: int) -> None:
    """Write images [B, 3, H, W] in [0, 1] as one picture."""
    write_png(contact_sheet(images.permute(0, 2, 3, 1), columns), path)


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 in the `with` block where the device has instructions for it.

    A processor without them emulates it, 20 times as slowly as float32 (AVX2, measured on the UNet's training step).
    """
    found = torch.cpu.get_capabilities()
    quick = device.type != "cpu" or found.get("avx512_bf16") or found.get("amx_bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(quick))


class Clock:
    """Training time in seconds, counted over interruptions, against a budget in minutes."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.budget, self.spent, self.last = minutes * 60, spent, time.monotonic()

    def tick(self) -> float:
        """The share of the budget that is used up, in [0, 1]."""
        now = time.monotonic()
        self.spent, self.last = self.spent + now - self.last, now
        return min(1.0, self.spent / self.budget)


class Average:
    """An exponential moving average of parameters, quick at the start."""

    def __init__(self, parameters: list[Tensor], decay: float = 0.995) -> None:
        self.decay, self.steps = decay, 0
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: list[Tensor]) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)

    @torch.no_grad()
    def swap(self, parameters: list[Tensor]) -> None:
        """Exchange the average with the parameters (twice puts everything back)."""
        for value, parameter in zip(self.values, parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)


class Parts:
    """Gradients of a batch cut into parts; each core takes the next part when it is free.

    One thread per part is faster than many threads on small layers, and a core that is busy with something else
    delays the step by one part at most.
    """

    def __init__(self, parts: int) -> None:
        self.parts = parts
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, loss_of: Callable[[int], Tensor], parameters: list[Tensor]) -> float:
        """Set `.grad` to the mean gradient of `loss_of(part)` and return the mean loss."""

        def one(part: int) -> tuple[float, tuple[Tensor | None, ...]]:
            loss = loss_of(part)
            return loss.item(), torch.autograd.grad(loss, parameters, allow_unused=True)

        losses, gradients = zip(*self.pool.map(one, range(self.parts)))
        used = [i for i, gradient in enumerate(gradients[0]) if gradient is not None]
        total = [gradients[0][i] for i in used]
        for others in gradients[1:]:
            torch._foreach_add_(total, [others[i] for i in used])
        torch._foreach_div_(total, float(self.parts))
        for i, gradient in zip(used, total, strict=True):
            parameters[i].grad = gradient
        return sum(losses) / self.parts
