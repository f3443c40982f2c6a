"""All randomness of a run comes from (seed, step, purpose), so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed that differs for every (seed, step, purpose)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose of one step."""
    return torch.Generator().manual_seed(derived_seed(seed, step, purpose))


@contextmanager
def global_seed(seed: int, step: int, purpose: str, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded for code that knows no other (gsplat's split), and restored after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, step, purpose))
        yield
