"""Replicas of a teacher in processes of their own, one for each further device, that share the views of a step.

    with replicated(teacher, load, ["cuda:1", "cuda:2"]):
        run.go(teacher, ...)  # `views_apart` finds them

Gaussians, rendering, all that is random, Adam and density control stay in this process, so there is nothing that
replicas could disagree about. Latents, embeddings and pictures travel by torch.distributed's gloo, each pair of
processes in a group of its own: a process that ends is noticed at once at the other end.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from ..errors import ReplicaError
from ..teachers.teacher import Conditioning, Request, Teacher
from .apart import Replica
from .encoding import WayBack, encode_both_ways
from .shortage import free_caches, is_out_of_memory

Load = Callable[[str], Teacher]
"""Gives the teacher on a device; it is called in another process, so pickle must know it."""

HERE, THERE = 0, 1
"""Ranks of the two processes of a link."""
PATIENCE = timedelta(days=30)
"""A replica waits so long for its next call; that the other process is gone it notices at once."""
LOOK, FAREWELL = 0.05, 5.0
"""Seconds between two looks for a process that starts, and until one whose connection is closed has ended."""


class Link:
    """One end between two processes. What travels is tensors, and words in JSON; nothing that is executed."""

    def __init__(self, group: Any, other: int) -> None:
        self._group, self._other = group, other

    @staticmethod
    def make(path: Path, rank: int) -> Link:
        """Either end, through a file that both know; waits for the other one."""
        store = torch.distributed.FileStore(str(path), 2)
        store.set(f"rank {rank}", "there")
        asker = multiprocessing.parent_process()  # of a replica; None at the other end
        while asker is not None and not store.check([f"rank {HERE}"]):
            if not asker.is_alive():
                raise RuntimeError("the process that wanted a replica is gone")
            time.sleep(LOOK)
        group = torch.distributed.ProcessGroupGloo(store, rank, 2, PATIENCE)
        return Link(group, THERE if rank == HERE else HERE)

    def send(self, words: dict[str, Any], tensors: Sequence[Tensor] = ()) -> None:
        """Errors: RuntimeError where the other process is gone."""
        tensors = [tensor.detach().cpu().contiguous() for tensor in tensors]
        shapes = [[str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for tensor in tensors]
        text = torch.frombuffer(bytearray(json.dumps([words, shapes]).encode()), dtype=torch.uint8)
        for tensor in (torch.tensor([len(text)]), text, *tensors):
            self._group.send([tensor], self._other, 0).wait()

    def receive(self) -> tuple[dict[str, Any], list[Tensor]]:
        """Words, and tensors on the processor. Errors: RuntimeError where the other process is gone."""
        length = self._received(torch.int64, [1])
        words, shapes = json.loads(bytes(self._received(torch.uint8, [int(length)]).tolist()))
        return words, [self._received(getattr(torch, dtype), shape) for dtype, shape in shapes]

    def _received(self, dtype: torch.dtype, shape: list[int]) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype)
        self._group.recv([tensor], self._other, 0).wait()
        return tensor


class RemoteReplica:
    """This process's hold of a replica."""

    def __init__(self, device: str, process: Any, link: Link) -> None:
        self.device, self._process, self._link = device, process, link

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        """See `Teacher`; requests of one place share a tensor there, too."""
        places = {id(r.x): r.x for r in requests}
        at = list(places)
        asked = [[at.index(id(r.x)), r.sigma, r.role, r.cond.pooled is not None] for r in requests]
        conds = [t for r in requests for t in (r.cond.tokens, r.cond.pooled) if t is not None]
        found = self.ask({"call": "predict", "places": len(at), "requests": asked}, [*places.values(), *conds])
        return [tensor.to(requests[0].x.device) for tensor in found]

    def encode(self, images: Tensor) -> Tensor:
        """See `Teacher`; no way back."""
        return self._encoded(images, graph=False)

    def encode_both_ways(self, images: Tensor) -> tuple[Tensor, WayBack]:
        """Latents, and the way back of the last images alone."""
        return self._encoded(images, graph=True), lambda gradient: self._moved({"call": "backward"}, gradient)

    def _encoded(self, images: Tensor, graph: bool) -> Tensor:
        return self._moved({"call": "encode", "graph": graph}, images)

    def _moved(self, words: dict[str, Any], tensor: Tensor) -> Tensor:
        """What the replica makes of one tensor, on that one's device."""
        (found,) = self.ask(words, [tensor])
        return found.to(tensor.device)

    def ask(self, words: dict[str, Any], tensors: Sequence[Tensor] = ()) -> list[Tensor]:
        """What the replica answers. Errors: torch.OutOfMemoryError, ReplicaError."""
        with self._listening():
            self._link.send(words, tensors)
        return self.answer()

    def answer(self) -> list[Tensor]:
        """The next one; the first says that it is loaded. Errors: as of `ask`."""
        with self._listening():
            words, found = self._link.receive()
        if "error" in words:
            text = f"{self.device}: {words['error']}"
            raise torch.OutOfMemoryError(text) if words["memory"] else ReplicaError(f"The teacher on {text}")
        return found

    def end(self) -> None:
        """The process ends at once, whatever it does: it holds nothing that is to be kept."""
        self._process.kill()
        self._process.join()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo's, of a connection that is closed
            self._process.join(FAREWELL)
            raise lost(self.device, self._process.exitcode) from error


def lost(device: str, code: int | None) -> ReplicaError:
    """What to say of a process that ended."""
    how = "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return ReplicaError(f"The process of the teacher on {device} {how}; what was saved until then is kept")


class Server:
    """The other end: a teacher that answers."""

    def __init__(self, teacher: Teacher, device: str) -> None:
        self._teacher, self._device = teacher, device
        self._back: WayBack | None = None
        """Of the last images that were encoded with it."""

    def answer(self, words: dict[str, Any], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Whatever the call asks for."""
        moved = [tensor.to(self._device) for tensor in tensors]
        if words["call"] == "predict":
            return self._predict(words, moved)
        if words["call"] == "encode":
            return [self._encode(moved[0], words["graph"])]
        assert self._back is not None
        back, self._back = self._back, None
        return [back(moved[0])]

    def forget(self) -> None:
        """What a call that failed has left."""
        self._back = None
        free_caches()

    def _predict(self, words: dict[str, Any], tensors: list[Tensor]) -> list[Tensor]:
        places, conds = tensors[: words["places"]], iter(tensors[words["places"] :])
        requests = [
            Request(places[at], sigma, Conditioning(next(conds), next(conds) if pooled else None), role)
            for at, sigma, role, pooled in words["requests"]
        ]
        return self._teacher.predict(requests)

    def _encode(self, images: Tensor, graph: bool) -> Tensor:
        self._back = None  # before another graph takes memory
        if graph:
            latents, self._back = encode_both_ways(self._teacher, images)
            return latents
        with torch.no_grad():
            return self._teacher.encode(images)


def serve(load: Load, device: str, path: Path, threads: int) -> None:
    """What a replica's process does: load the teacher, and answer until the other end is gone, or ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    torch.set_num_threads(threads)
    server: Server | None = None
    words: dict[str, Any] = {}
    tensors: list[Tensor] = []
    with suppress(RuntimeError):  # the other end is gone
        link = Link.make(path, THERE)
        while True:
            try:
                found: list[Tensor] = []
                if server is None:
                    server = Server(load(device), device)
                else:
                    found = server.answer(words, tensors)
            except Exception as error:
                if server is not None:
                    server.forget()
                text = " ".join(f"{type(error).__name__}: {error}".splitlines())
                link.send({"error": text, "memory": is_out_of_memory(error)})
            else:
                link.send({}, found)
            words, tensors = link.receive()


@contextmanager
def started(load: Load, devices: Sequence[str], threads: int) -> Iterator[list[RemoteReplica]]:
    """A replica on each device, loaded. Errors: torch.OutOfMemoryError, ReplicaError."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="dreamer-xl-") as folder, ExitStack() as stack:
        starting = []
        for i, device in enumerate(devices):
            path = Path(folder) / str(i)
            process = context.Process(target=serve, args=(load, device, path, threads), daemon=True)
            with no_interrupt():
                process.start()
            stack.callback(process.kill)
            starting.append((device, process, path))
        replicas = []
        for device, process, path in starting:
            replica = RemoteReplica(device, process, _met(device, process, path))
            stack.callback(replica.end)
            replicas.append(replica)
        for replica in replicas:
            replica.answer()
        yield replicas


def _met(device: str, process: Any, path: Path) -> Link:
    """The link to a process that starts. Errors: ReplicaError where it ends before it is there."""
    store = torch.distributed.FileStore(str(path), 2)
    while not store.check([f"rank {THERE}"]):
        if not process.is_alive():
            raise lost(device, process.exitcode)
        time.sleep(LOOK)
    return Link.make(path, HERE)


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C, not even before their first line."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)  # None: not Python's


@contextmanager
def replicated(teacher: Any, load: Load, devices: Sequence[str]) -> Iterator[None]:
    """Replicas of the teacher on further `devices`, which `views_apart` finds by its `replicas`; none: as it is.

    Those on a processor, and this process, take an equal part of the threads each.
    Errors: torch.OutOfMemoryError, ReplicaError.
    """
    if not devices:
        yield
        return
    threads = max(1, torch.get_num_threads() // (len(devices) + 1))
    with started(load, devices, threads) as replicas:
        together: list[Replica] = [teacher, *replicas]
        teacher.replicas = together
        try:
            yield
        finally:
            teacher.replicas = ()
