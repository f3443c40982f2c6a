"""Base colours of a glTF's materials: factor, texture, how its coordinates are moved and repeated, and transparency."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..mesh import Array, Wrap
from ..pictures import decoded
from .accessors import Accessors
from .document import BrokenModelError, Document

log = logging.getLogger(__name__)

WRAPS: dict[Any, Wrap] = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
SOURCES = ("EXT_texture_webp", "EXT_texture_avif")
BASIS = "KHR_texture_basisu"


@dataclass(frozen=True)
class Texture:
    image: NDArray[np.uint8]  # [H, W, 4]
    coordinates: str  # the attribute that holds them
    matrix: Array  # [2, 3], from coordinates to those in the image
    wrap: tuple[Wrap, Wrap]

    def uv(self, coordinates: Array) -> Array:  # [V, 2]
        return coordinates @ self.matrix[:, :2].T + self.matrix[:, 2]


@dataclass(frozen=True)
class Material:
    factor: Array  # [4] linear
    texture: Texture | None
    mode: str  # OPAQUE, MASK, BLEND
    cutoff: float


class Materials:
    """Reads materials of one document, each once."""

    def __init__(self, document: Document, accessors: Accessors) -> None:
        self.document, self.accessors = document, accessors
        self._images: dict[Any, NDArray[np.uint8] | None] = {}
        self._read: dict[Any, Material] = {}
        self._glow = False

    def read(self, index: Any) -> Material | None:
        """A material by its number; None for none."""
        if index is None:
            return None
        if index not in self._read:
            self._read[index] = self._material(self.document.item("materials", index))
        return self._read[index]

    def _material(self, entry: Mapping[str, Any]) -> Material:
        glossy = (entry.get("extensions") or {}).get(GLOSSY)
        plain = entry.get("pbrMetallicRoughness") or {}
        factor, texture = plain.get("baseColorFactor"), plain.get("baseColorTexture")
        if glossy is not None:
            factor, texture = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
        if not self._glow and (any(entry.get("emissiveFactor") or ()) or "emissiveTexture" in entry):
            self._glow = True
            log.warning("%s: glow (emissive colours) is not used, base colours are", self.document.path)
        return Material(
            np.asarray([1.0] * 4 if factor is None else factor, dtype=np.float64).reshape(4),
            None if texture is None else self._texture(texture),
            str(entry.get("alphaMode", "OPAQUE")),
            float(entry.get("alphaCutoff", 0.5)),
        )

    def _texture(self, info: Mapping[str, Any]) -> Texture | None:
        texture = self.document.item("textures", info["index"])
        image = self._image(texture)
        if image is None:
            return None
        moved = (info.get("extensions") or {}).get("KHR_texture_transform") or {}
        number = moved.get("texCoord", info.get("texCoord", 0))
        sampler = self.document.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        modes = sampler.get("wrapS", 10497), sampler.get("wrapT", 10497)
        if not all(mode in WRAPS for mode in modes):
            raise BrokenModelError(f"a sampler has the wrap modes {modes}")
        wrap = (WRAPS[modes[0]], WRAPS[modes[1]])
        return Texture(image, f"TEXCOORD_{int(number)}", _matrix(moved), wrap)

    def _image(self, texture: Mapping[str, Any]) -> NDArray[np.uint8] | None:
        """The picture of a texture; None, with a line, where its file is missing or cannot be decoded.

        Errors: InputError for one in KTX2 alone, which nothing here decodes.
        """
        extensions = texture.get("extensions") or {}
        numbers = [extensions[name].get("source") for name in SOURCES if name in extensions] + [texture.get("source")]
        numbers = [n for n in numbers if n is not None]
        if not numbers and BASIS in extensions:
            got = f"{self.document.path}, whose textures are KTX2 ({BASIS})"
            raise InputError(self.document.field, "textures as PNG, JPEG or WebP", got, "export it without KTX2")
        if not numbers:
            log.warning("%s: a texture without a picture; read without", self.document.path)
        for number in numbers:
            if number not in self._images:
                self._images[number] = self._decode(self.document.item("images", number), number)
            if self._images[number] is not None:
                return self._images[number]
        return None

    def _decode(self, entry: Mapping[str, Any], number: int) -> NDArray[np.uint8] | None:
        path, field = self.document.path, self.document.field
        if "bufferView" in entry:
            name, content = f"image {number}", self.accessors.view(entry["bufferView"])[0]
        else:
            uri = str(entry.get("uri", ""))
            name = f"image {number}" if uri[:5].lower() == "data:" else uri[:80]
            found = self.document.resource(uri)
            if found is None:
                log.warning("%s: its texture %r is not there; read without", path, name)
                return None
            content = found
        return decoded(io.BytesIO(content), name, path, field)


def _matrix(moved: Mapping[str, Any]) -> Array:  # [2, 3]
    """KHR_texture_transform: scaled, turned, moved. Counter-clockwise with v downwards, as its example and viewers."""
    (su, sv), (ou, ov) = moved.get("scale", (1.0, 1.0)), moved.get("offset", (0.0, 0.0))
    c, s = np.cos(moved.get("rotation", 0.0)), np.sin(moved.get("rotation", 0.0))
    return np.array([[c * su, s * sv, ou], [-s * su, c * sv, ov]], dtype=np.float64)
