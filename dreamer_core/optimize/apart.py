"""Views on threads of their own: small networks keep their speed on a machine that has other work.

Threads that share one small layer wait for each other thousands of times a step. Where another process holds one of
them up, all others spin in vain: a step of a second was seen to take ten and more. Threads that take a view each meet
once per call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Thread
from typing import Any

import torch
from torch import Tensor

from ..rendering.numba_runtime import one_kernel_thread
from ..teachers.teacher import Request, Teacher

LARGEST = 256
"""Pixels per side up to which views go apart. Layers of larger pictures keep many threads busy, and take memory."""


def workers_for(views: int, resolution: int, device: torch.device) -> int:
    """How many threads share the views evenly; 1 where they stay together."""
    workers = min(torch.get_num_threads(), views)
    together = device.type != "cpu" or resolution > LARGEST or views % workers
    return 1 if together else workers


class ViewsApart:
    """A teacher that hands each of its workers an equal share of the views. The arithmetic of a view stays as it is."""

    def __init__(self, teacher: Teacher, pool: ThreadPoolExecutor, workers: int) -> None:
        self._teacher, self._pool, self._workers = teacher, pool, workers

    @property
    def sigmas(self) -> Tensor:
        return self._teacher.sigmas

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        """See `Teacher`; requests of one place still share a tensor."""

        def part(views: slice) -> list[Tensor]:
            places = {id(r.x): r.x[views] for r in requests}
            return self._teacher.predict([Request(places[id(r.x)], r.sigma, r.cond[views], r.role) for r in requests])

        parts = list(self._pool.map(part, self._shares(len(requests[0].x))))
        return [torch.cat(of_request) for of_request in zip(*parts, strict=True)]

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        return self._teacher.combine(positive, negative, e_positive, e_negative, scale)

    def encode(self, images: Tensor) -> Tensor:
        """See `Teacher`; the way back goes apart as well."""
        wanted = torch.is_grad_enabled() and images.requires_grad

        def part(views: slice) -> tuple[Tensor, Tensor]:
            with torch.set_grad_enabled(wanted):
                leaf = images[views].detach().requires_grad_(wanted)
                return leaf, self._teacher.encode(leaf)

        parts = list(self._pool.map(part, self._shares(len(images))))
        latents: Tensor = _Joined.apply(images, parts, self._pool)
        return latents

    def _shares(self, views: int) -> list[slice]:
        size = -(-views // self._workers)
        return [slice(start, start + size) for start in range(0, views, size)]


class _Joined(torch.autograd.Function):
    """Latents of parts that each have a graph of their own, with the way back to all images on the workers."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, parts: list[tuple[Tensor, Tensor]], pool: ThreadPoolExecutor) -> Tensor:
        ctx.pool, ctx.parts = pool, parts
        return torch.cat([latents.detach() for _, latents in parts])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        def back(part: tuple[Tensor, Tensor], above: Tensor) -> Tensor:
            leaf, latents = part
            (found,) = torch.autograd.grad(latents, leaf, above)
            return found

        above = gradient.split([len(latents) for _, latents in ctx.parts])
        return torch.cat(list(ctx.pool.map(back, ctx.parts, above))), None, None


@contextmanager
def views_apart(teacher: Teacher, views: int, resolution: int, device: torch.device) -> Iterator[Teacher]:
    """The teacher for the steps of a run, on threads of its own where that pays; else, and with a multi-view adapter,
    the teacher as it is.

    Meanwhile this thread computes alone. All other threads of the process, and those to come, keep what they had, and
    so does this one afterwards.
    """
    workers = workers_for(views, resolution, device)
    if workers == 1 or getattr(teacher, "multiview", None):  # groups of views belong together
        yield teacher
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "views", _set_threads, (max(1, before // workers),))
    all_there = Barrier(workers)
    try:
        list(pool.map(lambda _: all_there.wait(), range(workers)))
        _set_threads(1)
        _of_new_threads(before)
        with one_kernel_thread():
            yield ViewsApart(teacher, pool, workers)
    finally:
        pool.shutdown()
        torch.set_num_threads(before)


def _set_threads(threads: int) -> None:
    """For this thread. torch gives a thread its first number when it first looks, and would do so after this."""
    torch.get_num_threads()
    torch.set_num_threads(threads)


def _of_new_threads(threads: int) -> None:
    """What threads that come later will have: torch remembers the last number that any thread was given."""
    other = Thread(target=torch.set_num_threads, args=(threads,))
    other.start()
    other.join()
