"""The numbers that a glTF's accessors describe: strided, normalised, sparse, compressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.bounds import require_memory
from .document import BrokenModelError, Document

Array = NDArray[Any]
TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
DRACO = "KHR_draco_mesh_compression"
MEMORY = 24
"""Bytes for each number that accessors declare: float64, a copy in triangles, a copy under its transform."""


class Accessors:
    """Reads accessors of one document, each once."""

    def __init__(self, document: Document) -> None:
        """Errors: BrokenModelError for sizes that no accessor has; InputError where the memory does not suffice."""
        self.document = document
        self._buffers: dict[int, bytes] = {}
        self._views: dict[int, tuple[bytes, int]] = {}
        self._read: dict[int, Array] = {}
        numbers = sum(_count(a) * WIDTHS[a["type"]] for a in document.items("accessors"))
        require_memory(MEMORY * numbers, document.path, document.field)

    def read(self, index: Any) -> Array:  # [N] or [N, width]
        """The values of an accessor: floats, normalised integers as floats, other integers as they are."""
        if index not in self._read:
            accessor = self.document.item("accessors", index)
            self._read[index] = _normalised(self._raw(accessor), bool(accessor.get("normalized")))
        return self._read[index]

    def declared(self, index: Any) -> bool:
        """Whether an accessor has values of its own, or leaves them to an extension."""
        accessor = self.document.item("accessors", index)
        return "bufferView" in accessor or "sparse" in accessor

    def _raw(self, accessor: Mapping[str, Any]) -> Array:
        kind, width, count = np.dtype(TYPES[accessor["componentType"]]), WIDTHS[accessor["type"]], _count(accessor)
        if "bufferView" in accessor:
            values = self._strided(accessor["bufferView"], accessor.get("byteOffset", 0), kind, width, count)
        else:
            values = np.zeros((count, width), kind)
        if "sparse" in accessor:
            values = self._sparse(values.copy(), accessor["sparse"])
        return values[:, 0] if width == 1 else values

    def _sparse(self, values: Array, sparse: Mapping[str, Any]) -> Array:
        where, what, count = sparse["indices"], sparse["values"], _count(sparse)
        kind = np.dtype(TYPES[where["componentType"]])
        rows = self._strided(where["bufferView"], where.get("byteOffset", 0), kind, 1, count)[:, 0]
        if count and int(rows.max()) >= len(values):
            raise BrokenModelError(f"a sparse accessor names row {int(rows.max())} of {len(values)}")
        start = what.get("byteOffset", 0)
        values[rows] = self._strided(what["bufferView"], start, values.dtype, values.shape[1], count)
        return values

    def _strided(self, view: Any, offset: int, kind: np.dtype[Any], width: int, count: int) -> Array:  # [count, width]
        data, stride = self.view(view)
        row = kind.itemsize * width
        stride = stride or row
        if count and (offset < 0 or stride < row or offset + (count - 1) * stride + row > len(data)):
            got = f"an accessor wants {count:,} rows of {row} bytes from byte {offset} of a view of {len(data):,}"
            raise BrokenModelError(got)
        if count == 0:
            return np.zeros((0, width), kind)
        # A copy of its own, so that the file's bytes can go and any offset is as good as any other.
        flat = np.frombuffer(data, np.uint8)[offset:]
        rows = np.lib.stride_tricks.as_strided(flat, (count, row), (stride, 1))
        return np.ascontiguousarray(rows).view(kind).reshape(count, width)

    def view(self, index: Any) -> tuple[bytes, int]:
        """The bytes of a buffer view, and the distance of its rows (0: none is given)."""
        if index not in self._views:
            entry = self.document.item("bufferViews", index)
            extensions = entry.get("extensions") or {}
            packed = next((extensions[name] for name in MESHOPT if name in extensions), None)
            self._views[index] = (
                (self._slice(entry), entry.get("byteStride", 0)) if packed is None else self._meshopt(packed)
            )
        return self._views[index]

    def _slice(self, entry: Mapping[str, Any]) -> bytes:
        number = entry["buffer"]
        if number not in self._buffers:
            self._buffers[number] = self.document.buffer(number)
        start, size = entry.get("byteOffset", 0), entry["byteLength"]
        data = self._buffers[number]
        if start < 0 or size < 0 or start + size > len(data):
            raise BrokenModelError(f"a view of {size:,} bytes from byte {start:,} of a buffer of {len(data):,}")
        return data[start : start + size]

    def _meshopt(self, packed: Mapping[str, Any]) -> tuple[bytes, int]:
        count, stride = _count(packed), int(packed["byteStride"])
        require_memory(2 * count * stride, self.document.path, self.document.field)
        try:
            import meshopt
        except ImportError as error:
            remedy = "pip install meshopt, or export it without compression"
            got = f"none for {self.document.path}"
            what = "the package meshopt, which a model with EXT_meshopt_compression needs"
            raise InputError(self.document.field, what, got, remedy) from error
        data, mode, kind = self._slice(packed), packed["mode"], packed.get("filter", "NONE")
        try:
            rows = meshopt.decode_gltf_buffer(data, count, stride, mode, None if kind == "NONE" else kind)
        except Exception as error:  # the binding raises several kinds for damaged data
            raise BrokenModelError(f"its EXT_meshopt_compression cannot be decoded ({str(error)[:80]})") from error
        return rows.tobytes(), stride if mode == "ATTRIBUTES" else 0

    def draco(self, extension: Mapping[str, Any], attributes: Mapping[str, Any]) -> tuple[dict[str, Array], Array]:
        """Attributes by name, and the triangles, of a primitive that Draco compressed."""
        data, _ = self.view(extension["bufferView"])
        try:
            import DracoPy
        except ImportError as error:
            remedy = "pip install DracoPy, or export it without compression"
            what = f"the package DracoPy, which a model with {DRACO} needs"
            raise InputError(self.document.field, what, f"none for {self.document.path}", remedy) from error
        try:
            decoded = DracoPy.decode(data)
            found = {a["unique_id"]: np.asarray(a["data"]) for a in decoded.attributes}
            faces = np.asarray(decoded.faces, dtype=np.int64).reshape(-1, 3)
        except Exception as error:  # the binding raises several kinds for damaged data
            raise BrokenModelError(f"its {DRACO} cannot be decoded ({str(error)[:80]})") from error
        named = {}
        for name, number in extension["attributes"].items():
            accessor = self.document.item("accessors", attributes.get(name))
            shape = (_count(accessor), WIDTHS[accessor["type"]])
            if number not in found or found[number].size != shape[0] * shape[1]:
                raise BrokenModelError(f"its {DRACO} holds no {name} of {shape[0]:,} rows of {shape[1]}")
            values = found[number].reshape(shape)
            named[name] = _normalised(values.astype(TYPES[accessor["componentType"]]), bool(accessor.get("normalized")))
        return named, faces


def _count(entry: Mapping[str, Any]) -> int:
    count = entry["count"]
    if not isinstance(count, int) or count < 0:
        raise BrokenModelError(f"an accessor of {count!r} rows")
    return count


def _normalised(values: Array, normalized: bool) -> Array:
    """Integers over [0, 1] or [-1, 1] as float64, where they are meant so."""
    if not normalized or values.dtype.kind == "f":
        return values
    return np.maximum(values / float(np.iinfo(values.dtype).max), -1.0)
