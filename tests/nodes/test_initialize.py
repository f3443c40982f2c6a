"""DreamerXLInitialize: files, meshes and Shap-E as starts, upright in ComfyUI's frame; saved graphs stay valid."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

sys.path.append(str(Path(__file__).resolve().parents[1] / "core"))

from tiny_shap_e import save_tiny_shap_e

COLORS = {"red": (0.0, 0.8, 0.0), "green": (0.0, 0.0, 0.8), "blue": (0.8, 0.0, 0.0)}


def landmarks() -> trimesh.Trimesh:
    """Y up: red at the top, green at the front (+Z), blue at +X."""
    parts = []
    for channel, place in enumerate(COLORS.values()):
        box = trimesh.creation.box(extents=(0.3,) * 3)
        box.apply_translation(place)
        color = np.zeros((8, 4), dtype=np.uint8)
        color[:, channel] = color[:, 3] = 255
        box.visual.vertex_colors = color
        parts.append(box)
    return trimesh.util.concatenate(parts)


def centres(splat):
    """Middle of the red, green and blue Gaussians of a SPLAT, in its own frame (X right, Y down, Z forward)."""
    rgb = splat.sh[0, :, 0] * 0.2820948 + 0.5
    return {name: splat.positions[0][rgb[:, i] > 0.7].mean(0) for i, name in enumerate(COLORS)}


def assert_upright(splat):
    found = centres(splat)
    assert found["red"][1] < found["green"][1] - 0.3  # Y down: red is above
    assert found["green"][2] < found["red"][2] - 0.3  # Z forward, away from who looks at the front
    assert found["blue"][0] > found["red"][0] + 0.3


@pytest.fixture(scope="module")
def input_folder(host):
    landmarks().export(host / "input" / "landmarks.glb")
    (host / "input" / "sub").mkdir(exist_ok=True)
    (host / "input" / "sub" / "cloud.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n")
    (host / "input" / "notes.txt").write_text("no object")
    return host / "input"


def test_the_list_of_files(ours, input_folder):
    listed = ours("nodes.initialize").input_files()
    assert {"landmarks.glb", "sub/cloud.obj"} <= set(listed)
    assert "notes.txt" not in listed


def test_a_mesh_file(execute, input_folder):
    splat = execute("DreamerXLInitialize", source={"source": "file", "file": "landmarks.glb", "limit": 600}).args[0]
    assert splat.positions.shape == (1, 600, 3)
    assert_upright(splat)
    assert float(splat.positions.norm(dim=-1).sort().values[0, 587]) <= 0.8 + 1e-4
    torch.testing.assert_close(splat.opacities, torch.full_like(splat.opacities, 0.1))
    turned = execute(
        "DreamerXLInitialize",
        source={"source": "file", "file": "landmarks.glb", "limit": 600, "radius": 0.5},
        yaw=90.0,
        point_opacity=0.3,
    ).args[0]
    assert centres(turned)["blue"][2] < -0.2  # +X came to the front
    torch.testing.assert_close(turned.opacities, torch.full_like(turned.opacities, 0.3))


def test_a_point_cloud_file(execute, input_folder):
    splat = execute("DreamerXLInitialize", source={"source": "file", "file": "sub/cloud.obj", "limit": 80}).args[0]
    assert splat.positions.shape == (1, 80, 3)


@pytest.mark.parametrize(
    ("file", "message"),
    [("../secret.glb", "input folder"), ("gone.glb", "does not exist"), ("notes.txt", "file: expected a file of")],
)
def test_unusable_files(execute, input_folder, file, message):
    with pytest.raises(ValueError, match="Dreamer XL Initialize: file: expected") as caught:
        execute("DreamerXLInitialize", source={"source": "file", "file": file})
    assert message in str(caught.value)


def test_a_link_in_the_input_folder_is_followed(execute, input_folder, tmp_path, ours):
    outside = tmp_path / "elsewhere.glb"
    outside.write_bytes((input_folder / "landmarks.glb").read_bytes())
    (input_folder / "linked.glb").symlink_to(outside)
    assert "linked.glb" in ours("nodes.initialize").input_files()
    splat = execute("DreamerXLInitialize", source={"source": "file", "file": "linked.glb", "limit": 60}).args[0]
    assert splat.positions.shape == (1, 60, 3)


def test_the_fingerprint_follows_the_files_read_along(ours, input_folder):
    """A new buffer, material or texture must make the node run again; files beside it that it does not name, not."""
    folder = input_folder / "parts"
    folder.mkdir()
    for name, content in landmarks().export(file_type="gltf").items():
        (folder / name).write_bytes(content)
    (folder / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "a.mtl").write_text("newmtl a\nKd 1 0 0\nmap_Kd a.png\n")

    def fingerprint(name):
        return ours("nodes.initialize").DreamerXLInitialize.fingerprint_inputs(source={"source": "file", "file": name})

    def changes(name, change):
        before = fingerprint(name)
        assert fingerprint(name) == before
        change()
        return fingerprint(name) != before

    buffer = min(folder.glob("*.bin"))
    content = bytes(255 - value for value in buffer.read_bytes())
    assert changes("parts/model.gltf", lambda: buffer.write_bytes(content))
    assert changes("parts/a.obj", lambda: (folder / "a.mtl").write_text("newmtl a\nKd 0 1 0\nmap_Kd a.png\n"))
    assert changes("parts/a.obj", lambda: (folder / "a.png").write_bytes(b"1"))
    assert changes("parts/a.obj", lambda: (folder / "a.png").write_bytes(b"2"))
    assert changes("parts/a.obj", (folder / "a.png").unlink)
    assert not changes("parts/a.obj", lambda: (folder / "b.png").write_bytes(b"1"))
    assert fingerprint("parts/gone.obj") == fingerprint("../secret.obj") == ""


def mesh_value(**changes):
    from comfy_api.latest import Types

    found = landmarks()
    values = {
        "vertices": torch.tensor(np.array(found.vertices), dtype=torch.float32)[None],
        "faces": torch.tensor(np.array(found.faces))[None],
        "vertex_colors": torch.tensor(found.visual.vertex_colors / 255.0, dtype=torch.float32)[None],
    }
    return Types.MESH(**{**values, **changes})


def test_a_mesh_of_another_node(execute):
    splat = execute("DreamerXLInitialize", source={"source": "mesh", "mesh": mesh_value(), "count": 700}).args[0]
    assert splat.positions.shape == (1, 700, 3)
    assert_upright(splat)


def test_the_mesh_made_of_a_splat_comes_back_in_place(execute, host):
    """Our splat -> ComfyUI's SplatToMesh -> Initialize: colours and places survive, so both agree on the frame."""
    import comfy_extras.nodes_gaussian_splat as core

    start = execute("DreamerXLInitialize", source={"source": "mesh", "mesh": mesh_value(), "count": 3000},
                    point_opacity=0.95).args[0]  # fmt: skip
    defaults = {i.id: getattr(i, "default", None) for i in core.SplatToMesh.GET_SCHEMA().inputs}
    mesh = core.SplatToMesh.execute(**{**defaults, "splat": start, "resolution": 96}).args[0]
    again = execute("DreamerXLInitialize", source={"source": "mesh", "mesh": mesh, "count": 2000}).args[0]
    assert_upright(again)


def test_a_texture_of_a_mesh_starts_at_the_top_left(ours):
    """As SaveGLB writes it: glTF counts from the top."""
    from comfy_api.latest import Types

    texture = torch.zeros(1, 2, 2, 3)
    texture[0, 0, 0, 0] = 1.0  # red at the top left
    value = Types.MESH(
        torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]]),
        torch.tensor([[[0, 1, 2]]]),
        uvs=torch.tensor([[[0.1, 0.1], [0.2, 0.1], [0.1, 0.2]]]),
        texture=texture,
    )
    cloud = ours("nodes.host.mesh").one_from_mesh(value).sample(5, torch.Generator())
    torch.testing.assert_close(cloud.rgb, torch.tensor([1.0, 0, 0]).expand(5, 3))


def test_unusable_meshes(execute):
    two = mesh_value(vertices=mesh_value().vertices.repeat(2, 1, 1), faces=mesh_value().faces.repeat(2, 1, 1))
    flat = mesh_value(vertices=torch.zeros_like(mesh_value().vertices))
    wild = mesh_value(faces=mesh_value().faces + 1000)
    none = mesh_value(faces=torch.zeros(1, 0, 3, dtype=torch.long))
    for value, message in (
        (two, "a batch of 2"),
        (flat, "triangles with an area"),
        (wild, "names vertex"),
        (none, "0 triangles"),
    ):
        with pytest.raises(ValueError, match="Dreamer XL Initialize: mesh: expected") as caught:
            execute("DreamerXLInitialize", source={"source": "mesh", "mesh": value})
        assert message in str(caught.value)


@pytest.fixture
def shap_e_model(host, ours, monkeypatch, tmp_path):
    """A tiny Shap-E under models/diffusers, beside a model of another kind."""
    import folder_paths

    root = tmp_path / "diffusers"
    save_tiny_shap_e(root / "tiny" / "shap-e")
    (root / "other").mkdir()
    (root / "other" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusers", ([str(root)], ["folder"]))
    monkeypatch.setattr(ours("dreamer_core.initializers.shap_e"), "GRID", 24)
    return "tiny/shap-e"


def shap_e_source(model, **values):
    return {"source": "shap-e", "model": model, "prompt": "a mug", "count": 900, "steps": 2, **values}


def test_shap_e(execute, ours, shap_e_model):
    assert list(ours("nodes.shap_e").shap_e_folders()) == [shap_e_model]
    splat = execute("DreamerXLInitialize", source=shap_e_source(shap_e_model)).args[0]
    assert splat.positions.shape == (1, 900, 3)
    assert_upright(splat)
    spread = splat.positions[0].amax(0) - splat.positions[0].amin(0)
    assert spread[1] > 1.3 * spread[0]


def test_shap_e_can_be_cancelled(execute, shap_e_model):
    import comfy.model_management as mm

    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        execute("DreamerXLInitialize", source=shap_e_source(shap_e_model))


def pictures_of(execute, splat, azimuths):
    """As Dreamer XL Multi-View's cameras see it, on white."""
    view = {"background": "#ffffff", "resolution": 64, "half_width": 1.1}
    return torch.cat([execute("DreamerXLRender", splat=splat, path={"path": "view", "azimuth": a}, **view).args[0]
                      for a in azimuths])  # fmt: skip


def test_pictures_from_known_sides(execute):
    sides = [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]
    box = execute("DreamerXLInitialize", source={"source": "box", "count": 600, "opacity": 0.9}).args[0]
    with torch.inference_mode():
        box.positions[..., 0] *= 0.3  # a board, seen flat from the front and narrow from the side
    images = pictures_of(execute, box, sides)
    source = {"source": "views", "images": images, "azimuths": ", ".join(map(str, sides)), "count": 400}
    fitted = execute("DreamerXLInitialize", source={**source, "fit_steps": 25}).args[0]
    assert fitted.positions.shape == (1, 400, 3)
    seen = pictures_of(execute, fitted, sides)
    assert (seen - images).square().mean() < 0.25 * (images - 1.0).square().mean()
    turned = execute("DreamerXLInitialize", source={**source, "fit_steps": 0}, yaw=90.0).args[0]
    width, depth = (turned.positions[0, :, i].abs().max() for i in (0, 2))
    assert width > 1.5 * depth  # the narrow side is the front no more
    with pytest.raises(ValueError, match=r"azimuths: .*6 picture\(s\) and 2 azimuth"):
        execute("DreamerXLInitialize", source={**source, "azimuths": "0, 90"})
    with pytest.raises(ValueError, match="up: expected auto for pictures"):
        execute("DreamerXLInitialize", source=source, up="+z")


def test_shap_e_says_what_to_get(execute, shap_e_model):
    for model in ("none in models/diffusers", "other", "../../elsewhere"):
        with pytest.raises(ValueError, match=r"model: expected a Shap-E folder .*openai/shap-e"):
            execute("DreamerXLInitialize", source=shap_e_source(model))
    with pytest.raises(ValueError, match="shap-e prompt: expected a few words"):
        execute("DreamerXLInitialize", source=shap_e_source(shap_e_model, prompt=""))


def test_saved_graphs_stay_valid(execute, ours):
    """Inputs that an earlier version saved, and nothing else; later ones have Python defaults and come last."""
    sphere = {"source": "sphere", "count": 50, "size": 0.6, "opacity": 0.1}
    assert execute("DreamerXLInitialize", source=sphere, seed=0).args[0].positions.shape == (1, 50, 3)
    node = ours("nodes.initialize").DreamerXLInitialize
    inputs = node.define_schema().inputs
    assert [i.id for i in inputs][:2] == ["source", "seed"]
    assert all(i.optional for i in inputs[1:])
    options = {o.key: [i.id for i in o.inputs] for o in inputs[0].options}
    assert options["sphere"] == ["count", "size", "opacity"]
    assert options["file"] == ["file", "radius", "limit"]
    assert options["splat"] == ["splat", "radius", "limit"]
    assert node.validate_inputs(source=sphere) is True


def test_the_host_accepts_old_and_new_graphs(ours, host, input_folder, monkeypatch):
    """ComfyUI's own check of an API graph: what an earlier version saved, and links and bounds of the new inputs."""
    import asyncio

    import execution

    import nodes

    for name in ("initialize.DreamerXLInitialize", "export.DreamerXLExport"):
        module, cls = name.split(".")
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, cls, getattr(ours(f"nodes.{module}"), cls))

    def check(**inputs):
        graph = {
            "1": {"class_type": "DreamerXLInitialize", "inputs": inputs},
            "2": {
                "class_type": "DreamerXLExport",
                "inputs": {"splat": ["1", 0], "filename_prefix": "x", "format": "ply"},
            },
        }
        return asyncio.run(execution.validate_prompt("id", graph, None))

    old = {"source": "file", "source.file": "landmarks.glb", "source.radius": 0.5, "source.limit": 0, "seed": 3}
    assert check(**old)[0]
    assert check(**{"source": "sphere", "source.count": 100, "seed": 0})[0]
    assert check(**old, up="+z", yaw=30.0, point_opacity=0.2)[0]
    assert not check(**old, up="sideways")[0]
    assert not check(**old, yaw=1e9)[0]
    assert not check(**old, point_opacity=1.5)[0]
    assert not check(source="mesh")[0]  # nothing linked
    assert not check(**{"source": "shap-e", "source.model": "x", "source.prompt": "a mug", "source.steps": 0})[0]
