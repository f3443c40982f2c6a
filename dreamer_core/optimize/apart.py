"""The views of a step in shares, each on a thread of its own: for replicas of a teacher, and for small networks.

Replicas on several devices take a share of the views each (`replicas.py`). One small network keeps its speed so on a
processor that has other work: threads that share a small layer wait for each other thousands of times a step, and where
another process holds one of them up, all others spin in vain. A step of a second was seen to take ten and more. Threads
that take a view each meet once per call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from threading import Barrier, Thread
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..rendering.numba_runtime import one_kernel_thread
from ..teachers.multiview.group import group_azimuths, grouped
from ..teachers.teacher import Request, Teacher
from .encoding import WayBack, encode_both_ways

Found = TypeVar("Found")

LARGEST = 256
"""Pixels per side up to which views go apart. Layers of larger pictures keep many threads busy, and take memory."""


def workers_for(views: int, resolution: int, device: torch.device) -> int:
    """How many threads share the views evenly; 1 where they stay together."""
    workers = min(torch.get_num_threads(), views)
    together = device.type != "cpu" or resolution > LARGEST or views % workers
    return 1 if together else workers


class Replica(Protocol):
    """What computes a share of the views: a teacher as a whole, or as much of one as this."""

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        """See `Teacher`."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """See `Teacher`; the latents may be on another device than the images."""
        ...


def replicas_of(teacher: Teacher) -> Sequence[Replica]:
    """Those that share the teacher's views, on a device each; none where it works alone."""
    return getattr(teacher, "replicas", ())


def at_once_of(teacher: Teacher) -> int:
    """How many views the teacher takes with the memory of one on each of its devices."""
    return teacher.devices if isinstance(teacher, ViewsApart) else 1


class ViewsApart:
    """A teacher whose parts take a share of the views each. The arithmetic of a view stays as it is.

    A group of views is never cut: the teacher itself looks at it, and only its pictures are encoded in shares.
    """

    def __init__(self, teacher: Teacher, parts: Sequence[Replica], pool: ThreadPoolExecutor, devices: int = 1) -> None:
        self._teacher, self._parts, self._pool, self.devices = teacher, parts, pool, devices

    @property
    def sigmas(self) -> Tensor:
        return self._teacher.sigmas

    @property
    def azimuths(self) -> Tensor | None:
        """See `GroupTeacher`."""
        return group_azimuths(self._teacher)

    def grouped(self, azimuths: Tensor) -> Teacher:
        """See `GroupTeacher`."""
        return grouped(self._teacher, azimuths)

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        """See `Teacher`; requests of one place still share a tensor."""

        def of(part: Replica, views: slice) -> list[Tensor]:
            places = {id(r.x): r.x[views] for r in requests}
            return part.predict([Request(places[id(r.x)], r.sigma, r.cond[views], r.role) for r in requests])

        found = self._all(of, self._parts, self._shares(len(requests[0].x)))
        return [torch.cat(of_request) for of_request in zip(*found, strict=True)]

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        return self._teacher.combine(positive, negative, e_positive, e_negative, scale)

    def encode(self, images: Tensor) -> Tensor:
        """See `Teacher`; in shares where no graph is wanted."""
        if torch.is_grad_enabled() and images.requires_grad:
            return self._teacher.encode(images)

        def of(part: Replica, views: slice) -> Tensor:
            with torch.no_grad():
                return part.encode(images[views]).to(images.device)

        return torch.cat(self._all(of, self._parts, self._shares(len(images))))

    def encode_both_ways(self, images: Tensor) -> tuple[Tensor, WayBack]:
        """Latents, and the way back to all images, in shares as well."""

        def of(part: Replica, views: slice) -> tuple[Tensor, WayBack]:
            latents, back = encode_both_ways(part, images[views])
            return latents.to(images.device), back

        found = self._all(of, self._parts, self._shares(len(images)))

        def all_back(gradient: Tensor) -> Tensor:
            above = gradient.split([len(latents) for latents, _ in found])
            return torch.cat(self._all(lambda one, part: one[1](part), found, above))

        return torch.cat([latents for latents, _ in found]), all_back

    def _all(self, function: Callable[..., Found], *arguments: Sequence[Any]) -> list[Found]:
        """Results on the workers. An error is raised when all have ended: whoever tries again needs every part."""
        futures = [self._pool.submit(function, *each) for each in zip(*arguments)]
        wait(futures)
        return [future.result() for future in futures]

    def _shares(self, views: int) -> list[slice]:
        """As equal as can be, larger ones first; fewer than parts where there are fewer views."""
        count = min(views, len(self._parts))
        ends = [views * i // count for i in range(count, -1, -1)]
        return [slice(views - start, views - end) for start, end in pairwise(ends)]


@contextmanager
def views_apart(teacher: Teacher, views: int, resolution: int, device: torch.device) -> Iterator[Teacher]:
    """The teacher for the steps of a run: in shares among its replicas, else on threads of its own where that pays;
    else, and with a multi-view adapter but no replicas, the teacher as it is.

    Meanwhile this thread computes alone. All other threads of the process, and those to come, keep what they had, and
    so does this one afterwards.
    """
    replicas, workers = replicas_of(teacher), workers_for(views, resolution, device)
    parts: Sequence[Replica]
    if 0 < len(replicas) <= views:
        parts, devices = replicas, len(replicas)
    elif workers > 1 and not getattr(teacher, "multiview", None):  # groups of views belong together
        parts, devices = [teacher] * workers, 1
    else:
        yield teacher
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(len(parts), "views", _set_threads, (max(1, before // len(parts)),))
    all_there = Barrier(len(parts))
    try:
        list(pool.map(lambda _: all_there.wait(), parts))
        _set_threads(1)
        _of_new_threads(before)
        with one_kernel_thread():
            yield ViewsApart(teacher, parts, pool, devices)
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
