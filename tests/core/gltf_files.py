"""Writes small .glb files, byte by byte, for the tests of their reader."""

import io
import json
import struct

import numpy as np
from PIL import Image

CODES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "f4")
INDEX = np.array([0, 1, 2, 0, 2, 3], "u2")
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "f4")
HALVES = np.zeros((64, 64, 3), np.uint8)
HALVES[:, :32, 0] = HALVES[:, 32:, 2] = 255  # the left half red, the right half blue


class Glb:
    """A glTF that grows."""

    def __init__(self, **tree):
        self.blob, self.tree = b"", {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": [], **tree}

    def view(self, data, **more):
        self.blob += bytes(-len(self.blob) % 4)
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more})
        self.blob += data
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, array, **more):
        """The array's rows, each padded to four bytes."""
        array = np.asarray(array)
        width = array[0].size
        raw = [row.tobytes() for row in array]
        pad = 0 if width == 1 else -len(raw[0]) % 4
        stride = {"byteStride": len(raw[0]) + pad} if width > 1 and width < 16 else {}
        view = self.view(b"".join(row + bytes(pad) for row in raw), **stride)
        entry = {"bufferView": view, "componentType": CODES[array.dtype.str[1:]], "count": len(array)}
        self.tree["accessors"].append({**entry, "type": KINDS[width], **more})
        return len(self.tree["accessors"]) - 1

    def picture(self, pixels, kind="PNG", **texture):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
        self.tree.setdefault("images", []).append({"bufferView": self.view(file.getvalue())})
        self.tree.setdefault("textures", []).append({"source": len(self.tree["images"]) - 1, **texture})
        return len(self.tree["textures"]) - 1

    def quad(self, places=QUAD, index=INDEX, material=None, **attributes):
        """A primitive; with node and scene, so that the file is complete."""
        attributes = {"POSITION": self.accessor(places), **attributes}
        primitive = {"attributes": attributes}
        if index is not None:
            primitive["indices"] = self.accessor(np.asarray(index))
        if material is not None:
            self.tree["materials"] = [material]
            primitive["material"] = 0
        self.tree |= {"meshes": [{"primitives": [primitive]}], "nodes": [{"mesh": 0}], "scenes": [{"nodes": [0]}]}
        return primitive

    def save(self, path):
        if self.blob:
            self.tree["buffers"] = [{"byteLength": len(self.blob)}, *self.tree.get("buffers", [])[1:]]
        text = json.dumps(self.tree).encode()
        text += b" " * (-len(text) % 4)
        body = self.blob + bytes(-len(self.blob) % 4)
        parts = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(body), 0x004E4942) + body
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts)
        return path
