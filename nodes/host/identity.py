"""Content keys: what a run depends on, as a hash that survives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from blake3 import blake3
from torch import Tensor

from .description import Description, UndescribedError, module_attributes


class Content(NamedTuple):
    """What the inputs of a run hold."""

    name: str | None
    """None where something could not be identified: nobody could tell such a run from another."""
    unknown: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """For the user; empty where all is well."""
        if not self.unknown:
            return ""
        more = f" (and {len(self.unknown) - 1} more)" if len(self.unknown) > 1 else ""
        return f"not resumable: {self.unknown[0]} cannot be identified{more}"


class Key:
    """A growing hash. Every byte counts: blake3 reads 2.5 GB/s and more, so SDXL takes about two seconds."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._description = _HostDescription()

    def add(self, where: str, value: Any) -> Key:
        """Anything; `where` tells the user where it was found, should it not be describable."""
        self._hash.update(self._description.of((where, value), where))
        return self

    def text(self, *values: object) -> Key:
        return self.add("text", tuple(str(v) for v in values))

    def tensor(self, value: Tensor | None) -> Key:
        return self.add("a tensor", value)

    def hexdigest(self) -> str:
        return self._hash.hexdigest(length=16)

    def content(self) -> Content:
        unknown = tuple(self._description.unknown)
        return Content(None if unknown else self.hexdigest(), unknown)


class _HostDescription(Description):
    """Knows ComfyUI's ModelPatcher."""

    def _object(self, value: Any) -> bytes:
        return self.patcher(value) if _is_patcher(value) else super()._object(value)

    def patcher(self, value: Any) -> bytes:
        """A MODEL: its own weights (not the patched ones) and everything that changes what it does."""
        network = self.original(value.model, "", _originals(value))
        found = {k: v for k, v in vars(value).items() if k not in BOOKKEEPING}
        found["patches"] = self._named(found["patches"])  # every weight has its own
        digests = [self._field(name, part) for name, part in self._named(found)]
        return self.parts("patcher", type(value), network, *sorted(found), *digests)

    def _field(self, name: str, value: Any) -> bytes:
        try:
            return self.digest(value)
        except UndescribedError as error:
            raise UndescribedError(error.what, name.removeprefix("model_").replace("_", " ")) from error

    def original(self, module: torch.nn.Module, path: str, originals: Mapping[str, Any]) -> bytes:
        """A network with what was there before ComfyUI patched it."""
        if id(module) in self._done:
            return self._done[id(module)][1]
        found = module_attributes(module, path, originals)
        for name, value in found.items():
            if isinstance(value, torch.nn.Module) and name.startswith("_modules."):
                child = path + name.removeprefix("_modules.")
                inner = {} if child in originals else originals  # what is kept for the one in its place is not its own
                found[name] = self.original(value, f"{child}.", inner)
        digest = self.parts("module", type(module), self._named(found))
        self._done[id(module)] = (module, digest)
        return digest


BOOKKEEPING = frozenset(
    [
        "size",
        "model",
        "parent",
        "backup",
        "object_patches_backup",
        "hook_patches_backup",
        "hook_backup",
        "backup_buffers",
        "load_device",
        "offload_device",
        "weight_inplace_update",
        "patches_uuid",
        "pinned",
        "is_injected",
        "skip_injection",
        "cached_hook_patches",
        "current_hooks",
        "hook_mode",
        "cached_patcher_init",
        "is_multigpu_base_clone",
        "clone_base_uuid",
        "non_dynamic_delegate_model",
        "_last_prepare_log_key",
        "_free_methods",
        "_last_free_log_time",
    ]
)
"""Attributes of a ModelPatcher that say where it is, who made it and what it has loaded. What is new counts."""


def _is_patcher(value: Any) -> bool:
    """Known by its name: this file does without the host."""
    return any(c.__name__ == "ModelPatcher" and c.__module__ == "comfy.model_patcher" for c in type(value).__mro__)


def _originals(patcher: Any) -> dict[str, Any]:
    """By its path in the network, what ComfyUI keeps there instead while the MODEL or a clone of it is loaded."""
    found = dict(patcher.object_patches_backup)
    found |= {name: kept[0] for name, kept in patcher.hook_backup.items()}
    found |= dict(patcher.backup_buffers)
    found |= {name: kept.weight for name, kept in patcher.backup.items()}
    return found


def add_model(key: Key, model: Any) -> None:
    """A MODEL with its LoRAs, options, patches, wrappers, hooks and additional models."""
    key.add("the model", model)


def add_vae(key: Key, vae: Any) -> None:
    """A VAE by its encoder's weights."""
    weights = sorted((name, value) for name, value in vae.get_sd().items() if "decoder" not in name)
    key.add("the VAE", weights)
