"""Blobs at world +Y, +X and +Z, through ComfyUI's own splat nodes and ours."""

from __future__ import annotations

import inspect

import pytest
import torch

COLORS = {"+X": (1.0, 0.0, 0.0), "+Y": (0.0, 1.0, 0.0), "+Z": (0.0, 0.0, 1.0)}
AXES = {"+X": (1.0, 0.0, 0.0), "+Y": (0.0, 1.0, 0.0), "+Z": (0.0, 0.0, 1.0)}


@pytest.fixture(scope="module")
def blobs(ours):
    """A red blob at +X, a green one at +Y, a blue one at +Z."""
    gaussians = ours("dreamer_core.gaussians").Gaussians
    generator = torch.Generator().manual_seed(0)
    means = [torch.tensor(AXES[a]) * 0.7 + 0.06 * torch.randn(60, 3, generator=generator) for a in AXES]
    rgb = [torch.tensor(COLORS[a]).expand(60, 3) for a in AXES]
    scene = gaussians.from_activated(
        torch.cat(means),
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(180, 1),
        torch.full((180, 3), 0.05),
        torch.full((180,), 0.95),
        torch.cat(rgb),
    )
    return ours("nodes.host.splat").to_splat(scene)


@pytest.fixture(scope="module")
def core(host):
    import comfy_extras.nodes_gaussian_splat as nodes

    return nodes


def places(image: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Where each colour is in a picture on black: x to the right, y up, both in [-1, 1]; left out where unseen."""
    height, width, _ = image.shape
    y = torch.linspace(1, -1, height)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width)[None].expand(height, width)
    found = {}
    for axis, color in COLORS.items():
        c = color.index(1.0)
        others = [k for k in range(3) if k != c]
        weight = (image[..., c] - image[..., others].amax(-1)).clamp_min(0)
        if weight.sum() > 5:
            found[axis] = (float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum()))
    return found


def assert_front(found):
    """From the front: +X is right, +Y is up, +Z is in the middle."""
    assert found["+X"][0] > 0.2
    assert abs(found["+X"][1]) < 0.1
    assert found["+Y"][1] > 0.2
    assert abs(found["+Y"][0]) < 0.1
    assert abs(found["+Z"][0]) < 0.1
    assert abs(found["+Z"][1]) < 0.1


def assert_from_plus_x(found):
    """From +X: the front (+Z) is on the left, +Y is up."""
    assert found["+Z"][0] < -0.2
    assert found["+Y"][1] > 0.2


def test_core_render_splat(core, blobs):
    known = set(inspect.signature(core.RenderSplat.execute).parameters)
    given = {"splat": blobs, "width": 128, "height": 128, "background": "#000000", "sharpen": 1.0, "frames": 1}

    def look(position):
        camera = core._lookat_camera_info(position, (0.0, 0.0, 0.0), 40.0, torch.device("cpu"))
        values = {**given, "camera_info": camera}
        defaults = {i.id: getattr(i, "default", None) for i in core.RenderSplat.GET_SCHEMA().inputs}
        arguments = {k: values.get(k, defaults.get(k)) for k in known if k in values or k in defaults}
        return core.RenderSplat.execute(**arguments).args[0][0]

    assert_front(places(look((0.0, 0.0, 3.0))))
    assert_from_plus_x(places(look((3.0, 0.0, 0.0))))


def test_our_render(execute, blobs):
    def look(azimuth):
        view = {"path": "view", "azimuth": azimuth}
        return execute("DreamerXLRender", splat=blobs, path=view, resolution=128, background="#000000").args

    image, mask, depth = look(0.0)
    assert_front(places(image[0]))
    assert_from_plus_x(places(look(90.0)[0][0]))
    assert image.shape == (1, 128, 128, 3)
    assert mask.shape == (1, 128, 128)
    assert depth.shape == (1, 128, 128, 3)
    centre, right = depth[0, 64, 64, 0], depth[0, 64, 64 + 45, 0]
    assert centre > right > 0  # +Z is nearer than +X
    view = {"path": "view", "azimuth": 90.0}
    parallel = execute("DreamerXLRender", splat=blobs, path=view, resolution=128, background="#000000", half_width=1.1)
    assert_from_plus_x(places(parallel.args[0][0]))
    assert not torch.allclose(parallel.args[0], look(90.0)[0], atol=0.05)


def test_core_mesh(core, blobs):
    """The mesh's world is Y up: every colour is at its own axis."""
    defaults = {i.id: getattr(i, "default", None) for i in core.SplatToMesh.GET_SCHEMA().inputs}
    mesh = core.SplatToMesh.execute(**{**defaults, "splat": blobs, "resolution": 128}).args[0]
    vertices, colors = mesh.vertices[0], mesh.vertex_colors[0][..., :3]
    for axis, color in COLORS.items():
        chosen = (colors[:, color.index(1.0)] > 0.5) & (colors.sum(-1) < 1.5)
        assert chosen.any(), axis
        centre = vertices[chosen].mean(0)
        torch.testing.assert_close(centre, 0.7 * torch.tensor(AXES[axis]), atol=0.12, rtol=0)


def test_file_round_trip_and_merge_keep_the_frame(core, blobs, execute):
    file = core.SplatToFile3D.execute(blobs, "ply").args[0]
    again = core.File3DToSplat.execute(file).args[0]
    torch.testing.assert_close(again.positions, blobs.positions)
    for path in (0.0, 90.0):
        views = [
            execute("DreamerXLRender", splat=s, path={"path": "view", "azimuth": path}, resolution=64).args[0]
            for s in (blobs, again)
        ]
        torch.testing.assert_close(views[0], views[1], atol=0.02, rtol=0)


def test_export_equals_cores_file(core, blobs, execute):
    """Our PLY holds what ComfyUI's own writer writes, so Preview Splat shows both the same way."""
    ours = execute("DreamerXLExport", splat=blobs, filename_prefix="orientation/blobs").args[0]
    theirs = core.SplatToFile3D.execute(blobs, "ply").args[0]
    a, b = (core.File3DToSplat.execute(f).args[0] for f in (ours, theirs))
    for name in ("positions", "scales", "opacities"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-4, rtol=1e-4)
    base = b.sh.shape[2]  # ours has the columns of every degree, with zeros where there is none
    torch.testing.assert_close(a.sh[:, :, :base], b.sh, atol=1e-4, rtol=1e-4)
    assert not a.sh[:, :, base:].any()


def test_initialize_keeps_what_it_is_given(execute, blobs, host, core):
    """A splat of another node comes out as it went in; so does a file of ours."""
    taken = execute("DreamerXLInitialize", source={"source": "splat", "splat": blobs}).args[0]
    torch.testing.assert_close(taken.positions, blobs.positions)
    (host / "input" / "blobs.ply").write_bytes(core.SplatToFile3D.execute(blobs, "ply").args[0].get_bytes())
    read = execute("DreamerXLInitialize", source={"source": "file", "file": "blobs.ply"}).args[0]
    torch.testing.assert_close(read.positions, blobs.positions, atol=1e-5, rtol=0)


def test_transform_splat_turns_as_the_viewer_does(core, blobs, execute):
    """A turn about +Y in ComfyUI's node moves the front to the side in our view too."""
    defaults = {i.id: getattr(i, "default", None) for i in core.TransformSplat.GET_SCHEMA().inputs}
    arguments = {**{k: v for k, v in defaults.items() if v is not None}, "splat": blobs}
    name = next(k for k in arguments if "rot" in k and k.endswith("y"))
    turned = core.TransformSplat.execute(**{**arguments, name: 90.0}).args[0]
    found = places(
        execute("DreamerXLRender", splat=turned, path={"path": "view"}, resolution=128, background="#000000").args[0][0]
    )
    assert found["+Y"][1] > 0.2
    assert abs(found["+Z"][0]) > 0.2
