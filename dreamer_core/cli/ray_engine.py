"""Ray as the engine of work lists: a worker on every GPU, or core, of a machine or a cluster.

A worker loads a teacher once and keeps it. It gets what there is of an object and gives back its files, so nodes share
no disk. An object whose worker is lost begins anew from what the list's folder has.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..batch.index import Outcome
from ..batch.store import Files, Store
from ..batch.work_list import Item
from ..errors import InputError
from .board import Board
from .session import Interrupt
from .workshop import Workshop, finished_by, one_line

ATTEMPTS = 3
"""Workers that an object may lose before it counts as failed."""
LISTEN = 0.5
"""Seconds between two looks at Ctrl-C."""


@dataclass(frozen=True)
class Cluster:
    """Where the workers are."""

    address: str = ""
    """Of a running cluster; empty: this machine."""
    workers: int | None = None
    """None: as many as fit."""
    gpus: float | None = None
    """Share of a GPU per worker; None: a whole one, where there are any."""


class Worker:
    """An actor that makes objects; `stop` comes while one is being made."""

    def __init__(self, shared: Sequence[str], folder: str) -> None:
        with suppress(OSError):  # paths of the list are from there, where a node has it
            os.chdir(folder)
        self.interrupt = Interrupt()
        self.workshop = Workshop(shared, self.interrupt)

    def ready(self) -> int:
        """Its process, when it can work."""
        return os.getpid()

    def make(self, item: Item, before: Files) -> tuple[Outcome, Files]:
        """One object."""
        return self.workshop.make_files(item, before)

    def stop(self) -> None:
        """The object at hand ends after its step."""
        self.interrupt.requested = True


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected. Errors: InputError where it is not installed or does not answer."""
    try:
        import ray
    except ModuleNotFoundError as error:
        remedy = 'pip install "dreamer-xl[ray]", or leave --ray out'
        raise InputError("--ray", "the package ray", "none", remedy) from error
    path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", ""))))
    threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    mine = not ray.is_initialized()
    if mine:
        local: dict[str, Any] = {} if cluster.address else {"num_cpus": cluster.workers, "include_dashboard": False}
        try:
            ray.init(
                address=cluster.address or "local",
                runtime_env={"env_vars": {"PYTHONPATH": path, **threads}},
                log_to_driver=False,
                logging_level="ERROR",
                **local,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError("--ray", "the address of a running cluster", f"{cluster.address} ({error})") from error
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


@dataclass
class _Team:
    """The actors, each starting, idle or busy with an object."""

    ray: Any
    kind: Any
    shared: tuple[str, ...]
    starting: dict[Any, Any] = field(default_factory=dict)
    """Reference of `ready` -> actor."""
    idle: list[Any] = field(default_factory=list)
    busy: dict[Any, tuple[Any, Item]] = field(default_factory=dict)
    """Reference of `make` -> actor and object."""
    failures: int = 0
    """Actors in a row that did not start."""

    def hire(self) -> None:
        """One more worker, which may take a while to start."""
        actor = self.kind.remote(self.shared, os.getcwd())
        self.starting[actor.ready.remote()] = actor

    def wait(self) -> list[Any]:
        """References that are done, after a moment at most."""
        pending = [*self.busy, *self.starting]
        done, _ = self.ray.wait(pending, num_returns=1, timeout=LISTEN) if pending else ([], [])
        return list(done)

    def stop(self) -> None:
        """Whoever works ends after its step."""
        for actor, _ in self.busy.values():
            with suppress(self.ray.exceptions.RayError):
                actor.stop.remote()


def make_with_ray(
    items: Sequence[Item], board: Board, store: Store, shared: Sequence[str], cluster: Cluster, interrupt: Interrupt
) -> None:
    """All objects of a list; every outcome and its files are written when they come. Errors: InputError."""
    with connected(cluster) as ray:
        resources = ray.cluster_resources()
        gpus = (1.0 if resources.get("GPU") else 0.0) if cluster.gpus is None else cluster.gpus
        fitting = resources.get("GPU", 0.0) / gpus if gpus else resources.get("CPU", 1.0)
        count = max(1, min(cluster.workers or int(fitting), len(items)))
        board.workers = count
        kind = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2, max_restarts=0)(Worker)
        team = _Team(ray, kind, tuple(shared))
        queue = deque(waiting(items, board, store, shared))
        for _ in range(min(count, len(queue))):
            team.hire()
        _work(team, queue, board, store, interrupt)


def waiting(items: Sequence[Item], board: Board, store: Store, shared: Sequence[str]) -> Iterator[Item]:
    """The objects that are not there yet; those that are, or cannot be, are told at once."""
    for item in items:
        try:
            done = finished_by(item, lambda name, item=item: store.read(f"{item.name}/{name}"), shared, item.name)  # type: ignore[misc]
        except InputError as error:
            done = Outcome("failed", one_line(error))
        if done is None:
            yield item
        else:
            board.end(item, done)


def _work(team: _Team, queue: deque[Item], board: Board, store: Store, interrupt: Interrupt) -> None:
    lost: dict[str, int] = {}
    told = False
    while team.busy or (queue and not interrupt.requested):
        if interrupt.requested and not told:
            told = True
            team.stop()
        while team.idle and queue and not interrupt.requested:
            item, actor = queue.popleft(), team.idle.pop()
            board.begin(item)
            team.busy[actor.make.remote(item, store.read_folder(item.name))] = (actor, item)
        for reference in team.wait():
            if reference in team.starting:
                _started(team, reference, bool(queue))
                continue
            actor, item = team.busy.pop(reference)
            try:
                outcome, files = team.ray.get(reference)
            except team.ray.exceptions.RayError as error:
                lost[item.name] = lost.get(item.name, 0) + 1
                if lost[item.name] < ATTEMPTS:
                    board.say(f"{item.name}: its worker is lost; once more")
                    queue.appendleft(item)
                    team.hire()
                else:
                    board.end(item, Outcome("failed", f"{ATTEMPTS} workers were lost over it: {one_line(error)}"))
                continue
            store.write_folder(item.name, files)
            board.end(item, outcome)
            team.idle.append(actor)


def _started(team: _Team, reference: Any, needed: bool) -> None:
    """A worker that is ready, or another in place of one that could not start. Errors: InputError after some."""
    actor = team.starting.pop(reference)
    try:
        team.ray.get(reference)
    except team.ray.exceptions.RayError as error:
        team.failures += 1
        if team.failures >= ATTEMPTS:
            remedy = "the package must be installed on every node, in the same version"
            raise InputError("--ray", "workers that start", one_line(error), remedy) from error
        if needed:
            team.hire()
        return
    team.failures = 0
    team.idle.append(actor)
