"""Meshes of splats: closed, where the splat is, coloured as it is, and read back from the file."""

import ast
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("skimage", reason="the extra `mesh` is not installed")
pytest.importorskip("manifold3d", reason="the extra `mesh` is not installed")
pytest.importorskip("xatlas", reason="the extra `mesh` is not installed")

import trimesh

from dreamer_core.cli import main
from dreamer_core.errors import InputError
from dreamer_core.formats import save_gaussians
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers.mesh import Mesh
from dreamer_core.meshes import MeshConfig, build_mesh, glb_bytes, packages, paint_mesh
from dreamer_core.meshes.bake import _with_slivers
from dreamer_core.meshes.fusion import Grid
from dreamer_core.meshes.raster import rasterize_triangles
from dreamer_core.meshes.surface import Surface, decimate, extract, normals, solid_field

RADIUS = 0.6
RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.2, 0.9)
SMALL = MeshConfig(triangles=2000, texture=128, cells=48, views=16, resolution=128, size=0.0, origin="splat")


def ball(centre=(0.0, 0.0, 0.0), count=1500):
    """Flat Gaussians on a sphere, red where x > 0 and blue elsewhere; their skin is the sphere of RADIUS."""
    k = torch.arange(count, dtype=torch.float32) + 0.5
    y, turn = 1 - 2 * k / count, k * math.pi * (3 - math.sqrt(5))
    out = torch.stack([(1 - y * y).sqrt() * turn.cos(), y, (1 - y * y).sqrt() * turn.sin()], -1)
    # The quaternion that turns +Z towards `out`.
    quats = torch.stack([1 + out[:, 2], -out[:, 1], out[:, 0], torch.zeros(count)], -1)
    scales = torch.tensor([0.03, 0.03, 0.008]).expand(count, 3)
    rgb = torch.where(out[:, :1] > 0, torch.tensor(RED), torch.tensor(BLUE))
    means = (RADIUS - 0.008) * out + torch.tensor(centre)
    return Gaussians.from_activated(means, quats, scales, torch.full((count,), 0.95), rgb)


@pytest.fixture(scope="module")
def mesh():
    return build_mesh(ball(), SMALL)


def welded(mesh):
    """As programs that weld vertices of one place see it."""
    return trimesh.Trimesh(mesh.vertices, mesh.faces).process(merge_norm=True, merge_tex=True)


def test_it_is_closed_and_looks_outwards(mesh):
    assert mesh.watertight
    body = welded(mesh)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.03)
    assert (mesh.normals * mesh.vertices).sum(-1).min() > 0.9 * RADIUS
    assert len(mesh.faces) <= SMALL.triangles


def test_it_lies_where_the_splat_is(mesh):
    distance = np.linalg.norm(mesh.vertices, axis=-1) - RADIUS
    assert np.abs(distance).mean() < 0.01 * 2 * RADIUS
    moved = build_mesh(ball(centre=(3.0, -2.0, 1.0)), SMALL)
    middle = (moved.vertices.min(0) + moved.vertices.max(0)) / 2
    assert middle == pytest.approx([3.0, -2.0, 1.0], abs=0.01)


def test_its_texture_is_the_splats_colours(mesh):
    height, width = mesh.texture.shape[:2]
    assert (height, width) == (128, 128)
    column = np.minimum((mesh.uv[:, 0] * width).astype(int), width - 1)
    row = np.minimum((mesh.uv[:, 1] * height).astype(int), height - 1)
    found = mesh.texture[row, column] / 255
    right, left = mesh.vertices[:, 0] > 0.1, mesh.vertices[:, 0] < -0.1
    assert np.abs(found[right] - RED).mean() < 0.02
    assert np.abs(found[left] - BLUE).mean() < 0.02
    # Padding: nothing black is left outside the charts, where filters would bring it in.
    assert mesh.texture.max(axis=-1).min() > 100


@pytest.mark.parametrize(("origin", "low"), [("ground", 0.0), ("centre", -0.15), ("splat", 0.2)])
def test_size_and_origin(origin, low):
    """A ball of 1.2 above the ground as a mesh of 0.3 metres; its own origin is scaled along."""
    made = build_mesh(ball((0.0, 1.4, 0.0)), MeshConfig(**{**vars(SMALL), "size": 0.3, "origin": origin}))
    assert np.ptp(made.vertices, axis=0).max() == pytest.approx(0.3, rel=1e-4)
    assert made.vertices[:, 1].min() == pytest.approx(low, abs=0.006)


def test_the_file_says_the_same(mesh):
    content = glb_bytes(mesh, {"prompt": "a ball"})
    scene = trimesh.load(io.BytesIO(content), file_type="glb", process=False)
    (body,) = scene.geometry.values()
    assert np.allclose(body.vertices, mesh.vertices, atol=1e-6)
    assert np.allclose(body.vertex_normals, mesh.normals, atol=1e-3)
    assert np.allclose(body.visual.uv[:, 1], 1 - mesh.uv[:, 1], atol=1e-6)
    material = body.visual.material
    assert np.array_equal(np.asarray(material.baseColorTexture.convert("RGB")), mesh.texture)
    assert (material.metallicFactor, material.roughnessFactor) == (0.0, 0.9)
    tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert tree["scenes"][0]["extras"]["prompt"] == "a ball"
    assert "NORMAL" in tree["meshes"][0]["primitives"][0]["attributes"]


def field_of(*solids, n=40):
    """Distances in cells on a grid of n^3 to balls (centre, radius), a negative radius cuts a hollow."""
    at = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).astype(np.float32)
    found = np.full((n, n, n), 3.0, dtype=np.float32)
    for centre, radius in solids:
        distance = np.linalg.norm(at - np.float32(centre), axis=-1) - abs(radius)
        found = np.minimum(found, distance) if radius > 0 else np.maximum(found, -distance)
    return found.clip(-3, 3)


def test_loose_parts_and_hollows_go_and_large_parts_stay():
    big, hollow, crumb, other = ((14, 14, 14), 10), ((14, 14, 14), -4), ((34, 34, 34), 1.5), ((33, 14, 14), 5)
    field = field_of(big, hollow, crumb, other)
    assert field[14, 14, 14] > 0
    cleaned = solid_field(field, smallest_part=1.0)
    assert cleaned[14, 14, 14] < 0
    assert cleaned[34, 34, 34] > 0
    assert cleaned[33, 14, 14] < 0
    assert solid_field(field, smallest_part=0.0)[34, 34, 34] < 0
    assert solid_field(field, smallest_part=20.0)[33, 14, 14] > 0
    with pytest.raises(InputError, match="no picture shows as solid"):
        solid_field(np.ones((4, 4, 4), dtype=np.float32), 1.0)


def test_extraction_and_decimation_keep_a_ball_closed():
    grid = Grid(torch.tensor([1.0, 2.0, 3.0]), 0.1, (40, 40, 40))
    field = field_of(((20, 20, 20), 12))
    surface = extract(field, grid)
    assert surface.watertight
    centre = np.float32([3.0, 4.0, 5.0])
    out = normals(field, grid, surface.vertices)
    assert (out * (surface.vertices - centre)).sum(-1) == pytest.approx(1.2, abs=0.02)
    fewer = decimate(surface, 500)
    assert 350 <= len(fewer.faces) <= 500 < len(surface.faces)
    assert fewer.watertight
    assert np.linalg.norm(fewer.vertices - centre, axis=-1) == pytest.approx(1.2, abs=0.03)
    assert decimate(surface, 0) is surface
    assert not Surface(surface.vertices, surface.faces[1:]).watertight
    turned = np.concatenate([surface.faces[:1, ::-1], surface.faces[1:]])
    assert not Surface(surface.vertices, turned).watertight


def test_triangles_cover_every_pixel_once_and_the_nearest_wins():
    square = torch.tensor([[[0.0, 0, 2], [8, 0, 2], [8, 8, 2]], [[0.0, 0, 2], [8, 8, 2], [0, 8, 2]]])
    index, weights = rasterize_triangles(square, 10, 10)
    assert (index[:8, :8] >= 0).all()
    assert (index[8:] == -1).all()
    assert (index[:, 8:] == -1).all()
    at = (square[index[2, 5], :, :2] * weights[2, 5, :, None]).sum(0)
    assert at.tolist() == pytest.approx([5.5, 2.5])
    nearer = torch.tensor([[[-5.0, -5, 1], [20, -5, 1], [3, 4, 1]]])
    index, _ = rasterize_triangles(torch.cat([square, nearer]), 10, 10)
    assert index[0, 4] == 2
    assert index[7, 4] in (0, 1)


def test_a_triangle_between_two_texel_centres_has_its_texels():
    """Thin charts would take the colour of their neighbours."""
    thin = torch.tensor([[[2.6, 2.6, 0], [9.0, 2.62, 0], [9.0, 2.9, 0]]])
    index, weights = rasterize_triangles(thin, 12, 12)
    assert (index == -1).all()
    index, weights = _with_slivers(thin, index, weights)
    assert index[2, 2] == 0
    assert index[2, 8] == 0
    assert (index[6:] == -1).all()
    assert weights[2, 2].tolist() == [1, 0, 0]


def test_what_is_missing_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(packages.PACKAGES, "no_such_module", "no-such-package")
    save_gaussians(ball(count=50), tmp_path / "ball.ply")
    assert main(["convert", str(tmp_path / "ball.ply"), str(tmp_path / "ball.glb")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "OUT: expected the packages that meshes need" in error
    assert "got no no-such-package; install them: python -m pip install scikit-image manifold3d xatlas trimesh" in error


def test_whatever_a_mesh_imports_is_asked_for_before_it_is_made():
    """A package that is missing must be said before the pictures are made, not after."""
    folder = Path(packages.__file__).parent
    found = {
        name.partition(".")[0]
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        )
    }  # fmt: skip
    of_every_run = {"numpy", "torch", "PIL", "scipy"}
    assert "trimesh" in found
    assert found - of_every_run - sys.stdlib_module_names <= set(packages.PACKAGES)


def test_a_splat_without_a_surface_is_refused():
    faint = ball(count=50)
    with pytest.raises(InputError, match="of opacity above"):
        build_mesh(Gaussians(**{**dict(faint.tensors()), "logit_opacities": torch.full((50,), -4.0)}), SMALL)


def test_the_command_line(tmp_path, capsys):
    source, out = tmp_path / "ball.ply", tmp_path / "ball.glb"
    save_gaussians(ball(), source, metadata={"prompt": "a ball"})
    few = ["--triangles", "1000", "--texture", "64", "--cells", "32", "--views", "8", "--resolution", "64"]
    assert main(["convert", str(source), str(out), *few, "--size", "0.25"]) == 0
    said = capsys.readouterr().out
    assert "watertight" in said
    assert " x 0.25 x " in said
    body = trimesh.load(out, process=False, force="mesh")
    assert len(body.faces) <= 1000
    assert body.vertices[:, 1].min() == pytest.approx(0, abs=1e-6)
    assert main(["convert", str(source), str(tmp_path / "ball.spz"), "--size", "2"]) == 2
    assert "--size: expected OUT to be a mesh (.glb)" in capsys.readouterr().err
    assert main(["convert", str(source), str(out), "--views", "2"]) == 2
    assert "--views: expected a whole number from 8 to 512, got 2" in capsys.readouterr().err


def bare(mesh, **changes):
    """A mesh's geometry and layout, without its colours."""
    given = {"vertices": mesh.vertices.astype(float), "faces": mesh.faces, "uv": mesh.uv.astype(float)}
    return Mesh(**{**given, **changes})


def face_colours(mesh):
    """[F, 3] in [0, 1]: the texture at the middle of every triangle."""
    at = (mesh.uv[mesh.faces].mean(1) * len(mesh.texture)).astype(int).clip(0, len(mesh.texture) - 1)
    return mesh.texture[at[:, 1], at[:, 0]] / 255


@pytest.mark.parametrize("wound", ["outwards", "inwards"])
def test_a_mesh_that_is_there_takes_the_splats_colours(mesh, wound):
    faces = mesh.faces if wound == "outwards" else mesh.faces[:, ::-1].copy()
    painted, seen = paint_mesh(ball(), bare(mesh, faces=faces), SMALL)
    assert seen > 0.95
    assert np.array_equal(painted.faces, faces)
    assert np.allclose(painted.uv, mesh.uv)
    x = painted.vertices[painted.faces].mean(1)[:, 0]
    for side, rgb in ((x > 0.1, RED), (x < -0.1, BLUE)):
        assert np.abs(face_colours(painted)[side] - rgb).mean() < 0.05


def test_a_mesh_that_cannot_be_painted_is_refused_by_name(mesh):
    half = mesh.uv.astype(float)
    both = np.concatenate([mesh.faces, mesh.faces[:, ::-1]])
    for changes, words in (
        ({"vertices": mesh.vertices + 3.0}, "a surface of this splat"),
        ({"uv": half * 2}, "UVs from 0 to 1"),
        ({"uv": np.zeros_like(half)}, "a place of its own"),
        ({"faces": both}, "a place of its own"),
        ({"uv": np.full_like(half, np.nan)}, "NaN or inf in its UVs"),
        ({"faces": both, "uv": None}, "triangles face outwards"),
    ):
        given = {key: value if value is None else value.astype(value.dtype) for key, value in changes.items()}
        with pytest.raises(InputError, match=words):
            paint_mesh(ball(), bare(mesh, **given), SMALL)
