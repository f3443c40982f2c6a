"""Files that a model file refers to: found where the readers open them, and nowhere else."""

import json
import os

import numpy as np
import pytest
import trimesh
from PIL import Image

from dreamer_core.initializers.references import references


def triangle(texture=False):
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    if texture:
        material = trimesh.visual.material.SimpleMaterial(image=Image.new("RGB", (4, 4), (200, 50, 50)))
        mesh.visual = trimesh.visual.TextureVisuals(uv=np.array([[0, 0], [1, 0], [0, 1.0]]), material=material)
    return mesh


def opened(path, monkeypatch):
    """What trimesh's resolver gives out while the file is loaded."""
    names = set()
    plain = trimesh.resolvers.FilePathResolver.get

    def get(resolver, name):
        content = plain(resolver, name)
        for candidate in (name.strip(), name.strip().lstrip("/"), os.path.split(name)[-1]):
            if (path.parent / candidate).is_file():
                names.add((path.parent / candidate).resolve())
                break
        return content

    monkeypatch.setattr(trimesh.resolvers.FilePathResolver, "get", get)
    trimesh.load_scene(str(path), process=False)
    return names


def write_gltf(folder):
    for name, content in triangle().export(file_type="gltf").items():
        (folder / name).write_bytes(content)
    return folder / "model.gltf"


def write_obj(folder):
    content, extra = trimesh.exchange.obj.export_obj(triangle(True), return_texture=True, mtl_name="a b.mtl")
    for name, data in extra.items():
        (folder / name).write_bytes(data)
    (folder / "model.obj").write_text(content)
    return folder / "model.obj"


def write_ply(folder):
    Image.new("RGB", (4, 4)).save(folder / "skin.png")
    header = (
        "ply\nformat ascii 1.0\ncomment TextureFile skin.png\nelement vertex 3\nproperty float x\nproperty float y\n"
    )
    header += "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (folder / "model.ply").write_text(f"{header}0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    return folder / "model.ply"


@pytest.mark.parametrize("write", [write_gltf, write_obj, write_ply])
def test_what_trimesh_opens_is_found(write, tmp_path, monkeypatch):
    path = write(tmp_path)
    assert set(references(path)) == opened(path, monkeypatch) != set()


def test_nothing_outside_the_folder(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"x")
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.bin").write_bytes(b"y")
    (folder / "link.bin").symlink_to(secret)
    uris = [
        "../secret.bin",
        str(secret),
        "link.bin",
        "sub/a.bin",
        "/sub/a.bin",
        "data:x;base64,AA==",
        "gone",
        "a\0b",
        7,
    ]
    gltf = {"buffers": [{"uri": uri} for uri in uris], "images": "none"}
    (folder / "a.gltf").write_text(json.dumps(gltf))
    assert references(folder / "a.gltf") == [(folder / "sub" / "a.bin").resolve()]
    header = json.dumps(gltf).encode()
    (folder / "a.glb").write_bytes(
        b"glTF\2\0\0\0"
        + (20 + len(header)).to_bytes(4, "little")
        + len(header).to_bytes(4, "little")
        + b"JSON"
        + header
    )
    assert references(folder / "a.glb") == [(folder / "sub" / "a.bin").resolve()]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"glTF", b"[" * 100_000, b"mtllib", b"mtllib ..\n", b"\xff" * 100]
)
@pytest.mark.parametrize("suffix", [".gltf", ".glb", ".obj", ".ply", ".stl"])
def test_broken_files_refer_to_nothing(content, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert references(path) == []
    assert references(tmp_path / f"gone{suffix}") == []
