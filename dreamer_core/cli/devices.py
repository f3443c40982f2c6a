"""`--device A,B`: replicas of the teacher on further devices, which share the views of every step."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed

from ..errors import InputError
from ..optimize.memory import MemoryPlan
from ..optimize.replicas import replicated
from .options import resolve_device
from .teachers import WHICH

if TYPE_CHECKING:
    from ..teachers.sdxl.predictor import DiffusersSDXL


def resolve_devices(names: str) -> tuple[torch.device, ...]:
    """The devices of `--device`, the one that leads first. Errors: InputError where one is unknown or not there."""
    found = tuple(resolve_device(name.strip()) for name in names.split(","))
    known = [str(device) for device in (torch.device(d.type, d.index or 0) for d in found) if device.type != "cpu"]
    if len(set(known)) < len(known):
        raise InputError("--device", "every device once", names)
    return found


def check_devices(names: str, views: int) -> None:
    """Errors: InputError for more devices than a step has views."""
    count = len(names.split(","))
    if count > 1 and not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        raise InputError("--device", "one device, where torch is built without torch.distributed and gloo", names)
    if count > views:
        raise InputError("--device", f"at most as many as views, {views}", f"{count} ({names})", "or raise --views")


def load_replica(args: argparse.Namespace, plan: MemoryPlan, device: str) -> DiffusersSDXL:
    """The teacher that the options name, as much of it as makes predictions; for a process of its own."""
    from .generate import load_teacher

    with redirect_stderr(io.StringIO()):  # all of it has been said by the process that asks
        teacher = load_teacher(args, torch.device(device))
    teacher.release_text_encoders()
    teacher.limit_memory(checkpoint_encoder=plan.checkpoint_encoder, max_batch=plan.max_batch)
    if args.compile:
        teacher.compile()
    return teacher


@contextmanager
def shared_views(
    args: argparse.Namespace, teacher: DiffusersSDXL, plan: MemoryPlan, further: Sequence[torch.device]
) -> Iterator[None]:
    """Meanwhile the steps of runs with the teacher are shared. Errors: torch.OutOfMemoryError, ReplicaError."""
    names = [str(device) for device in further]
    if names:
        print(f"Loading the same on {', '.join(names)} ...", file=sys.stderr, flush=True)
    which = argparse.Namespace(**{name: getattr(args, name) for name in WHICH})
    with replicated(teacher, partial(load_replica, which, plan), names):
        yield
