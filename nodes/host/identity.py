"""Content keys: what a run depends on, as a hash that survives a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

SAMPLES = 64
"""Values that stand for a weight tensor; a checkpoint has thousands of tensors."""
DEPTH = 6
"""How deep into a patch's own objects to look."""


class Key:
    """A growing hash."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def text(self, *values: object) -> Key:
        for value in values:
            self._hash.update(f"{value}\0".encode())
        return self

    def tensor(self, value: Tensor | None) -> Key:
        """Every byte."""
        if value is None:
            return self.text("none")
        data = value.detach().cpu().contiguous()
        self.text(tuple(data.shape), data.dtype)
        self._hash.update(data.reshape(-1).view(torch.uint8).numpy().data)
        return self

    def sampled(self, value: Tensor) -> Key:
        """Shape, type and evenly spaced values: enough to tell weights apart."""
        flat = value.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLES)
        picked = flat[::step][:SAMPLES].to("cpu", torch.float32)
        return self.text(tuple(value.shape), value.dtype).tensor(picked)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def describe(value: Any, key: Key, depth: int = DEPTH) -> None:
    """Add whatever a patch consists of: plain values, tensors, functions with what they close over, objects."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype, torch.device)):
        key.text(type(value).__name__, repr(value))
    elif isinstance(value, Tensor):
        key.sampled(value)
    elif depth == 0:
        key.text(type(value).__qualname__)
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            key.text(name)
            describe(value[name], key, depth - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        _describe_all(value, key, depth)
    elif callable(value) and hasattr(value, "__qualname__"):
        _describe_function(value, key, depth)
    else:
        key.text(type(value).__module__, type(value).__qualname__)
        describe(getattr(value, "__dict__", {}), key, depth - 1)


def _describe_all(values: Iterable[Any], key: Key, depth: int) -> None:
    for value in values:
        describe(value, key, depth - 1)


def _describe_function(function: Callable, key: Key, depth: int) -> None:
    key.text(function.__module__, function.__qualname__)
    cells = getattr(function, "__closure__", None) or ()
    _describe_all([c.cell_contents for c in cells], key, depth)
    _describe_all(getattr(function, "__defaults__", None) or (), key, depth)
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, torch.nn.Module):
        describe(owner, key, depth - 1)


def add_model(key: Key, model: Any) -> None:
    """A MODEL: its own weights (not the patched ones), LoRA patches with strengths, options and object patches."""
    for name, parameter in model.model.state_dict().items():
        original = model.backup.get(name)
        key.text(name).sampled(parameter if original is None else original.weight)
    key.text("patches")
    for name in sorted(model.patches, key=str):
        key.text(name)
        describe(model.patches[name], key)
    key.text("options")
    describe(model.model_options, key)
    for name, value in sorted(model.object_patches.items()):
        key.text(name)
        if isinstance(value, torch.nn.Module):
            key.text(type(value).__qualname__)
            describe(value.state_dict(), key)
        else:
            describe(value, key)
    key.text(type(model.model.model_sampling).__qualname__).sampled(model.model.model_sampling.sigmas)


def add_vae(key: Key, vae: Any) -> None:
    """A VAE by its encoder's weights."""
    for name, parameter in vae.get_sd().items():
        if "decoder" not in name:
            key.text(name).sampled(parameter)
