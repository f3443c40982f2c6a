"""The JSON of a glTF, its binary buffers, and which extensions it needs."""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from ...errors import InputError
from ...formats.bounds import require_memory
from ..named_files import beside

log = logging.getLogger(__name__)

WEB = bytes.maketrans(b"-_", b"+/")
"""From the alphabet of base64 in addresses to the usual one."""
MARK, JSON_PART, BINARY_PART = b"glTF", b"JSON", b"BIN\0"
USED = {
    "KHR_texture_transform", "KHR_mesh_quantization", "KHR_draco_mesh_compression", "EXT_meshopt_compression",
    "KHR_meshopt_compression", "EXT_texture_webp", "EXT_texture_avif", "KHR_materials_pbrSpecularGlossiness",
    "EXT_mesh_gpu_instancing", "KHR_node_visibility", "KHR_materials_unlit", "KHR_texture_basisu",
}  # fmt: skip
"""Extensions that are heeded; what cannot be decoded is refused where it is met."""
NO_MATTER = {
    "KHR_lights_punctual", "KHR_xmp", "KHR_xmp_json_ld", "KHR_animation_pointer", "KHR_materials_ior",
    "KHR_materials_specular", "KHR_materials_clearcoat", "KHR_materials_sheen", "KHR_materials_anisotropy",
    "KHR_materials_iridescence", "KHR_materials_dispersion", "KHR_materials_emissive_strength",
    "KHR_materials_diffuse_transmission", "KHR_materials_variants", "KHR_node_hoverability", "KHR_node_selectability",
    "EXT_mesh_features", "EXT_structural_metadata", "EXT_lights_image_based", "MSFT_texture_dds", "VRM", "VRMC_vrm",
    "VRMC_materials_mtoon", "VRMC_springBone", "VRMC_node_constraint",
}  # fmt: skip
"""Extensions about light, gloss, films and descriptions: neither places nor base colours depend on them."""


class BrokenModelError(ValueError):
    """The file is no complete glTF; the message says what is wrong with it."""


class Document:
    """A glTF's JSON and the bytes of its buffers."""

    def __init__(self, path: Path, field: str) -> None:
        """Reads the JSON, and says which extensions are not used.

        Errors: BrokenModelError, OSError; InputError for an extension that the file requires and that is not known.
        """
        self.path, self.field = path, field
        self.tree, self._embedded = read_tree(path)
        asset = self.tree.get("asset") or {}
        version, least = str(asset.get("version", "2.0")), str(asset.get("minVersion", "2.0"))
        known = least in ("2", "2.0")
        if version.split(".")[0] != "2" or not known:
            raise BrokenModelError(f"it is glTF {version if known else least}, and 2.0 is read here")
        self._check_extensions()

    def _check_extensions(self) -> None:
        unknown = sorted(set(self.tree.get("extensionsRequired") or ()) - USED - NO_MATTER)
        if unknown:
            got = f"{self.path}, which requires {', '.join(map(str, unknown))[:160]}"
            raise InputError(self.field, "a model without extensions that are not known here", got, "export it without")
        unused = sorted(set(self.tree.get("extensionsUsed") or ()) - USED - NO_MATTER)
        if unused:
            log.warning("%s: extensions that are not used: %s", self.path, ", ".join(map(str, unused))[:160])

    def items(self, name: str) -> list[Any]:
        """A list of the JSON, empty where it has none."""
        found = self.tree.get(name) or []
        if not isinstance(found, list):
            raise BrokenModelError(f"its {name} are no list")
        return found

    def item(self, name: str, index: Any) -> dict[str, Any]:
        """An entry of a list of the JSON. Errors: BrokenModelError where there is none."""
        found = self.items(name)
        if not isinstance(index, int) or not 0 <= index < len(found) or not isinstance(found[index], dict):
            raise BrokenModelError(f"it names {name}[{index}], of {len(found)}")
        entry: dict[str, Any] = found[index]
        return entry

    def buffer(self, index: int) -> bytes:
        """The bytes of a buffer. Errors: BrokenModelError where they are missing or too few."""
        entry = self.item("buffers", index)
        if "uri" in entry:
            content = self.resource(entry["uri"])
            if content is None:
                raise BrokenModelError(f"its buffer {str(entry['uri'])[:80]!r} is not there")
        elif index:
            raise BrokenModelError(f"its buffer {index} names no file, which only the first may do")
        else:
            content = self._embedded
        if len(content) < entry["byteLength"]:
            raise BrokenModelError(f"its buffer {index} has {len(content):,} of {entry['byteLength']:,} bytes")
        return content

    def resource(self, uri: Any) -> bytes | None:
        """What a URI stands for: data of its own, or a file in the model's folder or below; None where it is missing.

        Errors: BrokenModelError for data that cannot be decoded.
        """
        text = str(uri)
        if text[:5].lower() == "data:":
            head, _, body = text.partition(",")
            raw = unquote_to_bytes(body)
            if not head.lower().endswith(";base64"):
                return raw
            raw = b"".join(raw.split()).rstrip(b"=")
            try:  # in either alphabet, padded or not, as browsers take it; a sign of neither is damage
                return base64.b64decode(raw.translate(WEB) + b"=" * (-len(raw) % 4), validate=True)
            except binascii.Error as error:
                raise BrokenModelError(f"data that is no base64 ({error})") from error
        file = beside(self.path, text, encoded=True)
        if file is None:
            return None
        require_memory(2 * file.stat().st_size, self.path, self.field)
        return file.read_bytes()


def read_tree(path: Path, embedded: bool = True) -> tuple[dict[str, Any], bytes]:
    """The JSON of a .gltf or .glb, and a .glb's binary part, if it is wanted. Errors: BrokenModelError, OSError."""
    with path.open("rb") as file:
        start = file.read(20)
        if start[:4] == MARK and not embedded:
            data = file.read(int.from_bytes(start[12:16], "little"))
        else:
            data = start + file.read()
    binary = b""
    if data[:4] == MARK:
        data, binary = _parts(data)
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenModelError(f"no JSON that can be read ({str(error)[:80]})") from error
    if not isinstance(tree, Mapping):
        raise BrokenModelError("its JSON is no object")
    return dict(tree), binary


def _parts(data: bytes) -> tuple[bytes, bytes]:
    """The JSON and the first binary part of a .glb; other parts are for others."""
    version, length = int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:12], "little")
    if version != 2:
        raise BrokenModelError(f"it is a binary glTF of version {version}, and 2 is read here")
    if length > len(data):
        raise BrokenModelError(f"it has {len(data):,} of {length:,} bytes")
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 8]
        part = data[at + 8 : at + 8 + size]
        if len(part) < size:
            raise BrokenModelError(f"its part {kind!r} has {len(part):,} of {size:,} bytes")
        found.setdefault(kind, part)
        at += 8 + size
    if JSON_PART not in found:
        raise BrokenModelError("it has no JSON")
    return found[JSON_PART], found.get(BINARY_PART, b"")
