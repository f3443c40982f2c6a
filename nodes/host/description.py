"""Values described completely: equal digests mean equal results, and what cannot be described is named.

A digest is made of the digests of a value's parts (a Merkle tree), so it knows no limit of depth, does not depend on
which parts are shared, and survives a restart. Set elements are ordered by their digests. What can be imported goes by
its name, and what the name stands for is described once: functions and classes refer to each other in circles.
"""

from __future__ import annotations

import datetime
import decimal
import dis
import enum
import functools
import logging
import re
import sys
import sysconfig
import threading
import types
import uuid
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

MOST = 3_000_000
"""Parts that one description may have: about a minute. Only a tangle of cycles has more."""
PLAIN = (
    *(type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes, range, decimal.Decimal),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
"""Types whose `repr` says all there is."""
CONTAINERS = (dict, list, tuple, set, frozenset, deque, bytearray, str, bytes, int, float, complex)
"""Types whose values are taken as they are, those of subclasses with their attributes too."""
STATELESS = (type(threading.Lock()), type(threading.RLock()))
"""Whether somebody holds a lock decides no result."""
NAMED_BY_OWNER = (
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
)
NOT_OF_A_CLASS = re.compile(
    r"__(module|qualname|doc|dict|weakref|annotations|annotate|annotate_func|annotations_cache|firstlineno"
    r"|static_attributes|type_params|dataclass_fields|dataclass_params|orig_bases|parameters)__|_abc_impl"
)
"""Names in a class that decide no result."""
FUNCTIONS = (types.FunctionType, staticmethod, classmethod, property)
DATA = (
    *(*PLAIN, *CONTAINERS, MappingProxyType, Tensor, np.ndarray, np.generic, torch.nn.Module, torch.Generator),
    *(types.SimpleNamespace, types.MethodType, functools.partial),
)
"""What counts wherever a function or a class refers to it."""
HOST = ("comfy", "comfy_api", "comfy_execution", "comfy_config", "execution", "folder_paths", "nodes", "server", "app")
"""ComfyUI's own packages, whose globals are caches and notes about memory."""
OWN = __name__.partition(".")[0]
"""This pack, whose changes `dreamer_core.optimize.identity.RESULTS` counts."""


def checksum(*parts: bytes | memoryview) -> bytes:
    """One digest of several byte strings, each with its length."""
    found = blake3(max_threads=blake3.AUTO)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


def tensor_bytes(value: Tensor) -> memoryview:
    """All values in order of their indices, on the CPU."""
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        plain = value.detach().as_subclass(Tensor).cpu().resolve_conj().resolve_neg().contiguous()
        return plain.reshape(-1).view(torch.uint8).numpy().data


class UndescribedError(Exception):
    """Names what cannot be described, and in which part of the whole it was found."""

    def __init__(self, what: str, part: str = "") -> None:
        super().__init__(what)
        self.what, self.part = what, part


class Description:
    """Digests of values; what could not be described is listed in `unknown`."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._done: dict[int, tuple[Any, bytes]] = {}
        """By id, with the value itself, so that no other value takes its id meanwhile."""
        self._open: dict[int, int] = {}
        """The depth of every value that is being described, by id."""
        self._reached = 0
        """The depth of the outermost value that a cycle within the latest one led back to."""
        self._count = 0
        self._referred: dict[int, Any] = {}
        """By id, what goes by its name."""
        self._waiting: list[Any] = []
        """What has been referred to and is not yet described."""

    def of(self, value: Any, where: str) -> bytes:
        """The digest of a value that is found at `where`; whatever is wrong with it, it lands in `unknown`."""
        self._open.clear()
        self._waiting.clear()
        self._reached = 0
        try:
            found = self.digest(value)
            definitions = []
            while self._waiting:
                definitions.append(self._definition(self._waiting.pop()))
            return checksum(found, *sorted(definitions))
        except UndescribedError as error:
            name = error.what
            where = f"{where}'s {error.part}" if error.part else where
        except RecursionError:
            name = "something nested too deeply"
        except Exception as error:  # a value of a stranger's: its own code may raise anything
            logging.warning("Dreamer XL: %s cannot be identified (%s)", where, error)
            name = f"{type(error).__name__}"
        entry = f"{name} in {where}"
        if entry not in self.unknown:
            self.unknown.append(entry)
        return checksum(b"unknown")

    def digest(self, value: Any) -> bytes:
        """Errors: UndescribedError, and whatever the value's own code raises."""
        kind = type(value)
        if kind in PLAIN:
            return checksum(b"plain", kind.__qualname__.encode(), repr(value).encode("utf-8", "surrogatepass"))
        if id(value) in self._done:
            return self._done[id(value)][1]
        depth = len(self._open)
        if id(value) in self._open:
            self._reached = min(self._reached, self._open[id(value)])
            return checksum(b"cycle", str(depth - self._open[id(value)]).encode())
        self._count += 1
        if self._count > MOST:
            raise UndescribedError("too large an object")
        outer, self._reached = self._reached, depth
        self._open[id(value)] = depth
        try:
            found = self._described(value)
        finally:
            self._open.pop(id(value), None)
        if self._reached >= depth:  # whole in itself, so the same wherever it is met
            self._done[id(value)] = (value, found)
        self._reached = min(outer, self._reached)
        return found

    def parts(self, tag: str, *values: Any) -> bytes:
        """The digest of a kind of thing that consists of these values."""
        return checksum(tag.encode(), *map(self.digest, values))

    def _described(self, value: Any) -> bytes:
        if isinstance(value, type):
            return self._type(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(value)
        if isinstance(value, enum.Enum):
            return self.parts("enum", type(value), value.name, value.value)
        if isinstance(value, torch.nn.Module):
            return self.module(value)
        found = self._callable(value)
        if found is None:
            found = self._container(value)
        return self._object(value) if found is None else found

    def _tensor(self, value: Tensor) -> bytes:
        """Every byte, wherever it is kept; subclasses with their attributes."""
        if is_traceable_wrapper_subclass(value):  # the values are in its attributes
            return self.parts("tensor", type(value), tuple(value.shape), value.dtype, self._named(vars(value)))
        own = type(value) not in (Tensor, torch.nn.Parameter)
        about = (type(value), self._named(vars(value))) if own else ()
        described = self.parts("tensor", tuple(value.shape), value.dtype, *about)
        try:
            return checksum(described, tensor_bytes(value))
        except (RuntimeError, NotImplementedError, TypeError) as error:  # sparse, on `meta`, in an old quantised type
            raise UndescribedError(f"{name_of(type(value))} without plain values") from error

    def _array(self, value: np.ndarray | np.generic) -> bytes:
        data = np.asarray(value)
        own = isinstance(value, np.ndarray) and type(value) is not np.ndarray
        about = self.parts("array", type(value), repr(data.dtype), data.shape, self._attributes(value) if own else None)
        if data.dtype.hasobject:
            return checksum(about, self.digest(data.tolist()))
        return checksum(about, data.tobytes())

    def _container(self, value: Any) -> bytes | None:
        """Contents in order, kind, and attributes that a subclass may add."""
        if isinstance(value, MappingProxyType):
            return self.parts("mapping", dict(value))
        base: Any = next((kind for kind in CONTAINERS if isinstance(value, kind)), None)
        if base is None:
            return None
        kind, more = type(value), () if type(value) is base else (self._named(self._attributes(value)),)
        if base in (str, bytes, bytearray, int, float, complex):
            return self.parts(base.__name__, kind, base.__repr__(value), *more)
        if base is dict:
            flat = [part for pair in dict.items(value) for part in pair]
            return self.parts("dict", kind, getattr(value, "default_factory", None), *more, *flat)
        if base in (set, frozenset):
            found = sorted(map(self.digest, base.__iter__(value)))
            return checksum(self.parts("set", kind, *more), *found)
        if base is deque:
            more = (value.maxlen, *more)
        return self.parts(base.__name__, kind, len(value), *more, *base.__iter__(value))

    def _callable(self, value: Any) -> bytes | None:
        """Functions and what stands for them; None for anything else."""
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self.parts("method", value.__self__, value.__func__)
        if isinstance(value, functools.partial):
            more = self._named(self._attributes(value))
            return self.parts("partial", type(value), value.func, value.args, value.keywords, more)
        if isinstance(value, (staticmethod, classmethod)):
            return self.parts(type(value).__name__, value.__func__)
        if isinstance(value, property):
            return self.parts("property", type(value), value.fget, value.fset, value.fdel)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.CellType):
            try:
                return self.parts("cell", value.cell_contents)
            except ValueError:
                return self.parts("empty cell")
        if isinstance(value, NAMED_BY_OWNER):
            return self.parts("descriptor", value.__objclass__, value.__name__)
        if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            return self.parts("built-in", getattr(value, "__self__", None), value.__module__, value.__qualname__)
        return None

    def _function(self, value: types.FunctionType) -> bytes:
        """Its name, where that leads to it; else name, code and all that it refers to."""
        if importable(value):
            return self._reference(value)
        own = (value.__defaults__, value.__kwdefaults__, value.__closure__, vars(value), _read_by(value))
        return self.parts("local function", value.__module__, value.__qualname__, value.__code__, *own)

    def _reference(self, value: Any) -> bytes:
        if id(value) not in self._referred:
            self._referred[id(value)] = value
            self._waiting.append(value)
        return self.parts("reference", isinstance(value, type), value.__module__, value.__qualname__)

    def _definition(self, value: Any) -> bytes:
        """What a name stands for."""
        try:
            about = self._class_definition(value) if isinstance(value, type) else self._function_definition(value)
            return self.parts("definition", value.__module__, value.__qualname__, *about)
        except UndescribedError as error:
            raise UndescribedError(error.what, error.part or value.__qualname__) from error

    def _function_definition(self, value: types.FunctionType) -> tuple[Any, ...]:
        """Code, defaults, attributes and what is read; of installed packages' functions no more than plain values."""
        defaults = (*(value.__defaults__ or ()), *sorted((value.__kwdefaults__ or {}).items()))
        read = _read_by(value)
        if _of_package(value):
            plain = self._named({k: v for k, v in read.items() if _is_plain(v)})
            return (value.__code__, [v if _is_plain(v) else None for v in defaults], plain)
        cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        cells.pop("__class__", None)
        given = [v if _counts(v) else None for v in defaults]
        return (value.__code__, given, self._counting(vars(value)), self._named(cells), self._counting(read))

    def _class_definition(self, value: type) -> tuple[Any, ...]:
        """Bases, functions and attributes; of an installed package's class plain attributes and what others put in."""
        own = {k: v for k, v in vars(value).items() if not NOT_OF_A_CLASS.fullmatch(k)}
        if not _made_at_runtime(value) or value.__module__.partition(".")[0] == OWN or _installed(value.__module__):
            return (self._named({k: v for k, v in own.items() if _is_plain(v) or _is_put_in(v)}),)
        return (value.__bases__, self._counting(own))

    def _counting(self, values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        return self._named({k: v for k, v in values.items() if _counts(v)})

    def _code(self, code: types.CodeType) -> bytes:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        return self.parts(
            "code", code.co_code, code.co_consts, *names, *counts, getattr(code, "co_exceptiontable", b"")
        )

    def _type(self, value: type) -> bytes:
        """Its name, where that leads to it; else name, bases and whatever it defines."""
        if importable(value) or not _made_at_runtime(value):
            return self._reference(value)
        own = {k: v for k, v in vars(value).items() if not NOT_OF_A_CLASS.fullmatch(k)}
        own = {k: v for k, v in own.items() if not isinstance(v, types.MemberDescriptorType)}
        return self.parts(
            "local type", value.__module__, value.__qualname__, type(value), value.__bases__, self._named(own)
        )

    def module(self, value: torch.nn.Module) -> bytes:
        """A network: its kind, tensors, children, hooks and plain attributes."""
        return self.parts("module", type(value), self._named(module_attributes(value)))

    def _object(self, value: Any) -> bytes:
        """Attributes, where they are all there is."""
        kind = type(value)
        if isinstance(value, types.ModuleType):
            if sys.modules.get(value.__name__) is not value:
                raise UndescribedError(f"module {value.__name__}")
            return self.parts("python module", value.__name__)
        if isinstance(value, weakref.ProxyTypes):
            raise UndescribedError(name_of(kind))
        if isinstance(value, STATELESS):
            return self.parts("stateless", kind)
        if isinstance(value, logging.Logger):
            return self.parts("logger", value.name)
        if isinstance(value, weakref.ref):
            return self.parts("weak reference", kind, value())
        if isinstance(value, torch.Generator):
            return self.parts("torch generator", value.device.type, value.get_state())
        if isinstance(value, np.dtype):
            return self.parts("numpy type", repr(value))
        if isinstance(value, re.Pattern):
            return self.parts("pattern", value.pattern, value.flags)
        if isinstance(value, slice):
            return self.parts("slice", value.start, value.stop, value.step)
        if _keeps_more_than_attributes(kind):
            if callable(value) and importable(value):
                return self.parts("named", kind, value.__module__, value.__qualname__)
            raise UndescribedError(name_of(kind))
        if isinstance(value, Iterator):  # what is left of it is not known before it is used up
            raise UndescribedError(name_of(kind))
        return self.parts("object", kind, self._named(self._attributes(value)))

    def _attributes(self, value: Any) -> dict[str, Any]:
        """Of `__dict__` and `__slots__`."""
        found = dict(getattr(value, "__dict__", {}))
        for owner in type(value).__mro__:
            for name, slot in vars(owner).items():
                if isinstance(slot, types.MemberDescriptorType) and hasattr(value, name):
                    found[f"{owner.__qualname__}.{name}"] = slot.__get__(value)
        return found

    @staticmethod
    def _named(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """Attributes, whose order does not count."""
        return tuple(sorted(values.items(), key=lambda item: item[0]))


def module_attributes(
    module: torch.nn.Module, path: str = "", originals: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """What decides a network's output: everything but where it is and what ComfyUI notes on it while it is loaded.

    `originals` are what counts instead, by their paths; `path` is where the module's own begin.
    """
    found: dict[str, Any] = {}
    left_out = NOTED | (NOTED_ON_LAYERS if _is_host_layer(module) else frozenset())
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules"):
            found |= {f"{name}.{k}": originals.get(path + k, v) for k, v in value.items()}
        elif name.startswith("_") and "_hooks" in name and isinstance(value, Mapping):
            if value:
                found[name] = list(value.values())  # their keys count all hooks of the process
        elif name not in left_out:
            original = originals.get(path + name, value)
            if not _is_own_method(module, name, original):
                found[name] = original
    return found


NOTED = frozenset(
    [
        "device",
        "current_patcher",
        "latent_shapes",
        "model_loaded_weight_memory",
        "lowvram_patch_counter",
        "model_lowvram",
        "current_weight_patches_uuid",
        "model_offload_buffer_memory",
        "dynamic_pins",
        "dynamic_patchers",
        "dynamic_vbars",
        "comfy_force_cast_weights",
        "comfy_patched_weights",
        "_comfy_graph",
        "_comfy_cross_step_state",
        "_v_block",
        "_v_block_faulted",
    ]
)
"""Attributes of any network that only say where it is and how it is loaded (comfy.model_patcher, model_prefetch)."""
NOTED_ON_LAYERS = frozenset(
    [
        "comfy_cast_weights",
        "prev_comfy_cast_weights",
        "comfy_need_lazy_init_bias",
        "seed_key",
        "weight_function",
        "bias_function",
        "weight_lowvram_function",
        "bias_lowvram_function",
        "_v",
        "_v_signature",
        "_v_weight",
        "_v_bias",
        "_pins",
        "_pin_state",
        "_prefetch",
    ]
)
"""The same of the layers of comfy.ops. Patches among them are the MODEL's own, and described there."""


def _is_host_layer(module: torch.nn.Module) -> bool:
    """Known by its name: this file does without the host."""
    return any(kind.__module__ == "comfy.ops" for kind in type(module).__mro__)


def _is_own_method(owner: Any, name: str, value: Any) -> bool:
    """A method put back where it came from, as after an object patch."""
    same = isinstance(value, types.MethodType) and value.__self__ is owner
    return same and getattr(type(owner), name, None) is value.__func__


def name_of(kind: type) -> str:
    """As a user may look it up."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def importable(value: Any) -> bool:
    """Whether its module and its qualified name lead to it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return value is getattr(found, "__func__", found)


def _read_by(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function reads, by name, and what it may read of modules among them."""
    loaded, names = _names_in(function.__code__)
    found: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if path in found:
            return
        found[path] = value
        if isinstance(value, types.ModuleType) and not _installed(value.__name__):
            for name in names & vars(value).keys():
                if path.count(".") < 4:  # modules refer to each other
                    add(f"{path}.{name}", vars(value)[name])

    for name in loaded & function.__globals__.keys():
        add(name, function.__globals__[name])
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=100_000)
def _names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Globals that the code, or code within it, looks up; and all names in it, attributes' too."""
    inner = [_names_in(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    loaded = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return frozenset(loaded).union(*(g for g, _ in inner)), frozenset(code.co_names).union(*(n for _, n in inner))


def _counts(value: Any) -> bool:
    """Whether a function's or a class's result may depend on it: not the machinery of installed packages."""
    if isinstance(value, types.ModuleType):
        return False
    if isinstance(value, (*DATA, *FUNCTIONS)):
        return True
    owner = value if isinstance(value, type) else type(value)
    return not _installed(owner.__module__)


@functools.lru_cache(maxsize=10_000)
def _installed(module: str | None) -> bool:
    """Whether a module belongs to Python, to an installed package or to ComfyUI, not to somebody's nodes."""
    top = (module or "").partition(".")[0]
    if top in HOST or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return any(file.startswith(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib"))


def _of_package(function: types.FunctionType) -> bool:
    """Its `__module__` may be that of what it wraps."""
    return _installed(function.__globals__.get("__name__"))


def _is_put_in(value: Any) -> bool:
    """A function that somebody's nodes have put in the place of an installed package's."""
    function = getattr(value, "__func__", value)
    return isinstance(function, types.FunctionType) and not _of_package(function)


def _is_plain(value: Any) -> bool:
    return type(value) in PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def _made_at_runtime(kind: type) -> bool:
    """Not a static type of an extension, which nothing can change."""
    return bool(kind.__flags__ & (1 << 9))  # Py_TPFLAGS_HEAPTYPE


def _keeps_more_than_attributes(kind: type) -> bool:
    """Whether instances hold something outside of `__dict__` and `__slots__`; the test that pickle makes."""
    slots = 0
    for owner in kind.__mro__:
        names = vars(owner).get("__slots__", ())
        names = [names] if isinstance(names, str) else names
        slots += sum(n not in ("__dict__", "__weakref__") for n in names)
    pointers = slots + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return kind.__itemsize__ > 0 or kind.__basicsize__ > object.__basicsize__ + pointers * tuple.__itemsize__
