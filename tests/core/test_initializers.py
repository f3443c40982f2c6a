"""Where the Gaussians start: points and meshes from files, their colours, their size, and which way is up."""

import json
import math
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import InputError
from dreamer_core.formats import write_ply
from dreamer_core.frames import flip_frame
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import (
    UPS,
    PointCloud,
    fitted,
    from_points,
    gaussians_from_cloud,
    gaussians_from_file,
    oriented,
    upright,
)
from dreamer_core.initializers.mesh import Mesh, to_display, to_linear
from dreamer_core.initializers.model_files import MODEL_UP, read_points
from dreamer_core.initializers.placement import extent, rotated
from dreamer_core.initializers.start_files import is_splat
from dreamer_core.rendering import render

RED, GREEN, BLUE = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)
VERTICES_4 = "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
RGB = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
FACES = "property list uchar int vertex_indices\n"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ascii_ply(path, header, rows):
    path.write_text(f"ply\nformat ascii 1.0\n{header}end_header\n" + "\n".join(rows) + "\n")
    return path


def block(center, color, edge=0.3):
    """A cube of one colour."""
    box = trimesh.creation.box(extents=(edge,) * 3)
    box.apply_translation(center)
    box.visual.vertex_colors = np.tile(np.array(color, dtype=np.uint8), (8, 1))
    return box


def landmarks():
    """Our world: red at the top, green at the front, blue on the right of someone who looks at the front."""
    return [block((0, 0.8, 0), RED), block((0, 0, 0.8), GREEN), block((0.8, 0, 0), BLUE)]


def places(gaussians, azimuth=0.0):
    """Where red, green and blue are in a picture: x to the right, y up, in [-1, 1]; absent where hidden."""
    camera = orbit_cameras([azimuth], 0.0, 4.0, 0.7, 64)
    visible = Gaussians.from_activated(
        gaussians.means, gaussians.quats, gaussians.scales, torch.full((len(gaussians),), 0.9), gaussians.rgb
    )
    image = render(visible, camera, backgrounds=torch.zeros(1, 3), backend="torch").colors[0]
    y, x = torch.meshgrid(torch.linspace(1, -1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    found = {}
    for channel, name in enumerate(("red", "green", "blue")):
        weight = (image[..., channel] - image.sum(-1) + image[..., channel]).clamp_min(0)
        if weight.sum() > 3:
            found[name] = (float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum()))
    return found


def assert_upright(gaussians):
    front, side = places(gaussians), places(gaussians, 90.0)
    assert front["red"][1] > front["green"][1] + 0.2  # red on top
    assert front["blue"][0] > front["green"][0] + 0.2  # blue on the right of green: not mirrored
    assert side["green"][0] < side["blue"][0] - 0.2  # from +X the front is on the left
    assert side["red"][1] > side["blue"][1] + 0.2


def to_file_axes(mesh, up):
    """The landmarks along the axes of a file with `up` up."""
    transform = np.eye(4)
    transform[:3, :3] = upright(up).numpy().T
    return mesh.apply_transform(transform)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_top_up_and_front_to_us_by_the_rule_of_the_format(tmp_path, suffix):
    path = tmp_path / f"landmarks{suffix}"
    trimesh.util.concatenate([to_file_axes(part, MODEL_UP[suffix]) for part in landmarks()]).export(path)
    assert_upright(gaussians_from_file(path, points=600))


@pytest.mark.parametrize("up", UPS[1:])
def test_every_axis_can_be_up(tmp_path, up):
    path = tmp_path / "landmarks.ply"
    trimesh.util.concatenate([to_file_axes(part, up) for part in landmarks()]).export(path)
    assert_upright(gaussians_from_file(path, points=400, up=up))
    assert math.isclose(float(torch.linalg.det(upright(up))), 1.0, abs_tol=1e-12)


def test_yaw_turns_the_named_side_to_the_front(tmp_path):
    path = tmp_path / "landmarks.glb"
    trimesh.util.concatenate(landmarks()).export(path)
    turned = places(gaussians_from_file(path, points=600, yaw=90.0))  # +X, blue, comes to the front
    assert turned["green"][0] < turned["blue"][0] - 0.2
    assert turned["red"][1] > turned["blue"][1] + 0.2
    torch.testing.assert_close(upright("+y", 30.0) @ torch.tensor([0.5, 0, math.sqrt(0.75)]).double(),
                               torch.tensor([0.0, 0.0, 1.0]).double())  # fmt: skip


def test_nodes_of_a_scene_stand_where_their_transforms_put_them(tmp_path):
    """One cube, three times: moved, and once twice as large, which has four times the surface."""
    scene = trimesh.Scene()
    cube = trimesh.creation.box()
    for x, scale in ((-4.0, 1.0), (0.0, 1.0), (4.0, 2.0)):
        scene.add_geometry(cube, geom_name="cube", transform=np.diag([scale, scale, scale, 1.0]) + np.eye(4, k=3) * x)
    scene.export(tmp_path / "scene.glb")
    x = read_points(tmp_path / "scene.glb", 6000, generator()).points[:, 0]
    assert [int(((x > low) & (x < low + 3)).sum()) for low in (-5.5, -1.5, 2.5)] == [1000, 1000, 4000]
    skewed = trimesh.Scene()
    skewed.add_geometry(cube, transform=np.diag([1.0, 3.0, 1.0, 1.0]))
    skewed.export(tmp_path / "skewed.glb")
    points = read_points(tmp_path / "skewed.glb", 1400, generator()).points
    sides = (points[:, [0, 2]].abs() > 0.499).any(-1)
    assert int(sides.sum()) == pytest.approx(1200, abs=2)  # 4 sides of area 3, 2 ends of area 1


def test_points_are_spread_by_area():
    mesh = Mesh(np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, -2.0, 0]]), np.array([[0, 1, 2], [0, 1, 3]]))
    points = mesh.sample(3000, generator()).points
    assert int((points[:, 1] > 0).sum()) == 1000
    upper = points[points[:, 1] > 0]
    torch.testing.assert_close(upper.mean(0), torch.tensor([1.0, 1 / 3, 0.0]).double(), atol=0.05, rtol=0)


def test_colours_of_faces_vertices_and_points(tmp_path):
    faces = ascii_ply(
        tmp_path / "faces.ply", f"{VERTICES_4}element face 2\n{FACES}{RGB}",
        ["0 0 0", "1 0 0", "1 1 0", "0 1 0", "3 0 1 2 255 0 0", "3 0 2 3 0 0 51"],
    )  # fmt: skip
    cloud = read_points(faces, 200, generator())
    below = cloud.points[:, 1] < cloud.points[:, 0]
    assert below.sum() == 100
    torch.testing.assert_close(cloud.rgb[below], torch.tensor([1.0, 0, 0]).expand(100, 3))
    torch.testing.assert_close(cloud.rgb[~below], torch.tensor([0, 0, 0.2]).expand(100, 3))

    (tmp_path / "vertices.obj").write_text("v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nf 1 2 3\n")
    cloud = read_points(tmp_path / "vertices.obj", 50, generator())
    x, y = cloud.points[:, 0], cloud.points[:, 1]
    torch.testing.assert_close(cloud.rgb, torch.stack([1 - x - y, x, y], -1).float(), atol=1e-5, rtol=0)

    points = ascii_ply(tmp_path / "points.ply", VERTICES_4 + RGB, [f"{i} {i * i} 0 {51 * i} 0 255" for i in range(4)])
    cloud = read_points(points, 99, generator())
    torch.testing.assert_close(cloud.points[:, 1], torch.tensor([0.0, 1, 4, 9]).double())
    torch.testing.assert_close(cloud.rgb, torch.tensor([[0.2 * i, 0, 1] for i in range(4)]))


def textured_square(colors, factor=None):
    """A square whose texture's top left, top right, bottom left and bottom right have these colours."""
    image = Image.fromarray(np.array(colors, dtype=np.uint8).reshape(2, 2, 3))
    square = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image, baseColorFactor=factor)
    uv = [[0, 0], [1, 0], [1, 1], [0, 1]]
    square.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return square


@pytest.mark.parametrize("suffix", [".glb", ".gltf", ".obj"])
def test_colours_of_a_texture(tmp_path, suffix):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (102, 51, 0)]
    files = textured_square(colors).export(tmp_path / f"square{suffix}")
    assert files is not None
    cloud = read_points(tmp_path / f"square{suffix}", 400, generator())
    right, top = cloud.points[:, 0] > 0.5, cloud.points[:, 1] > 0.5
    for chosen, color in zip((~right & top, right & top, ~right & ~top, right & ~top), colors):
        assert chosen.sum() > 80
        torch.testing.assert_close(
            cloud.rgb[chosen], (torch.tensor(color) / 255).expand(int(chosen.sum()), 3), atol=0.01, rtol=0
        )


def test_gltf_colours_are_linear(tmp_path):
    """Vertex colours and factors by the standard; textures are display values, tinted in linear light."""
    cube = trimesh.creation.box()
    cube.visual.vertex_colors = np.tile(np.array([55, 55, 55, 255], dtype=np.uint8), (8, 1))
    cube.export(tmp_path / "cube.glb")
    assert float(read_points(tmp_path / "cube.glb", 9, generator()).rgb.mean()) == pytest.approx(0.5, abs=0.01)
    plain = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[55, 0, 0, 255])
    plain.visual = trimesh.visual.TextureVisuals(material=material)
    plain.export(tmp_path / "plain.glb")
    rgb = read_points(tmp_path / "plain.glb", 9, generator()).rgb
    torch.testing.assert_close(rgb, torch.tensor([0.5, 0.0, 0.0]).expand(9, 3), atol=0.01, rtol=0)
    textured_square([(128, 128, 128)] * 4, factor=[55, 255, 0, 255]).export(tmp_path / "tinted.glb")
    rgb = read_points(tmp_path / "tinted.glb", 9, generator()).rgb
    torch.testing.assert_close(rgb, torch.tensor([0.237, 0.502, 0.0]).expand(9, 3), atol=0.01, rtol=0)
    values = np.linspace(0, 1, 11)
    np.testing.assert_allclose(to_display(to_linear(values)), values, atol=1e-9)


def with_material(path, **material):
    """Give the first mesh of a .glb a material, as ComfyUI's SplatToMesh does beside its colours of vertices."""
    data = path.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + size])
    tree["materials"] = [{"pbrMetallicRoughness": material}]
    tree["meshes"][0]["primitives"][0]["material"] = 0
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    chunk = len(text).to_bytes(4, "little") + b"JSON" + text + rest
    path.write_bytes(data[:8] + (12 + len(chunk)).to_bytes(4, "little") + chunk)


def test_colours_of_vertices_count_beside_a_material(tmp_path):
    cube = trimesh.creation.box()
    cube.visual.vertex_colors = np.tile(np.array([128, 55, 0, 255], dtype=np.uint8), (8, 1))
    for name, material, expected in (
        ("plain", {}, (0.737, 0.503, 0.0)),
        ("tinted", {"baseColorFactor": [0.5, 1.0, 1.0, 1.0]}, (0.538, 0.503, 0.0)),  # 0.251 and 0.216 in linear light
    ):
        cube.export(tmp_path / f"{name}.glb")
        with_material(tmp_path / f"{name}.glb", **material)
        rgb = read_points(tmp_path / f"{name}.glb", 9, generator()).rgb
        torch.testing.assert_close(rgb, torch.tensor(expected).expand(9, 3), atol=0.01, rtol=0)


def test_a_missing_texture_leaves_the_material(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl a\nKd 0.2 0.4 0.6\nmap_Kd gone.png\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    )
    rgb = read_points(tmp_path / "a.obj", 9, generator()).rgb
    torch.testing.assert_close(rgb, torch.tensor([0.2, 0.4, 0.6]).expand(9, 3), atol=0.01, rtol=0)
    (tmp_path / "b.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert read_points(tmp_path / "b.obj", 9, generator()).rgb is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quad.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n"),
        ("quad.off", "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"),
    ],
)
def test_faces_of_four_corners(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    points = read_points(tmp_path / name, 400, generator()).points
    assert int((points[:, 0] > points[:, 1]).sum()) == 200
    torch.testing.assert_close(points.mean(0)[:2], torch.tensor([0.5, 0.5]).double(), atol=0.05, rtol=0)


def test_a_line_of_a_mesh_gives_its_corners(tmp_path):
    """Triangles without area are as good as points."""
    (tmp_path / "line.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nv 3 0 0\nf 1 2 3\nf 2 3 4\n")
    points = read_points(tmp_path / "line.obj", 50, generator()).points
    assert points.shape == (4, 3)


BROKEN = [
    ("empty.obj", "", "which is empty"),
    ("comment.obj", "# nothing\n", "which has none"),
    ("empty.glb", "", "which is empty"),
    ("junk.glb", "this is no binary glTF at all", "cannot be read"),
    ("junk.stl", "solid", "which has none"),
    ("junk.ply", "not a ply", "cannot be read"),
    ("junk.off", "OFF\n1 x\n", "cannot be read"),
    ("one.obj", "v 0 0 0\n", "at least 4 points with finite coordinates, got 1"),
    ("same.obj", "v 1 2 3\n" * 9, "9 points in one place"),
    ("nan.obj", "v nan 0 0\n" * 9, "at least 4 points with finite coordinates, got 0"),
    ("huge.obj", "v 1e300 0 0\nv 0 1e300 0\nv 0 0 1e300\nv 0 0 0\n", "coordinates that overflow"),
    ("face.ply", f"ply\nformat ascii 1.0\n{VERTICES_4}element face 1\n{FACES}end_header\n"
     "0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 9\n", "vertex 9 of 4"),
    ("picture.png", "", "--init: expected a file of"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), BROKEN, ids=[b[0] for b in BROKEN])
def test_unusable_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        gaussians_from_file(tmp_path / name, points=20, field="--init")
    assert message in str(caught.value)
    assert str(caught.value).startswith("--init: expected ")


def test_a_file_too_large_for_the_memory(tmp_path, monkeypatch):
    import psutil

    class Little:
        available = 100

    trimesh.creation.box().export(tmp_path / "box.glb")
    buffers = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": 10**9, "uri": "a.bin"}]}
    (tmp_path / "big.gltf").write_text(json.dumps(buffers))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    with pytest.raises(InputError, match="a file that fits the memory"):
        read_points(tmp_path / "box.glb", 10, generator())
    with pytest.raises(InputError, match=r"about 14\.9 GiB"):
        read_points(tmp_path / "big.gltf", 10, generator())


def test_points_that_are_not_finite_are_left_out(tmp_path, caplog):
    rows = ["0 0 0", "nan 0 0", "1 0 0", "0 1 0", "0 0 1", "0 inf 0"]
    path = ascii_ply(tmp_path / "nan.ply", VERTICES_4.replace("4", "6"), rows)
    start = gaussians_from_file(path, points=4)
    assert start.check_finite() is None
    assert len(start) == 4
    assert "nan.ply: 2 places with NaN or inf are left out" in caplog.text
    (tmp_path / "mesh.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv nan 1 0\nf 1 2 3\nf 2 3 4\n")
    assert torch.isfinite(read_points(tmp_path / "mesh.obj", 50, generator()).points).all()
    assert "mesh.obj: 1 places with NaN or inf are left out" in caplog.text


def test_a_ply_is_known_by_its_content(tmp_path):
    g = generator()
    splat = from_points(torch.rand(30, 3, generator=g))
    write_ply(splat, tmp_path / "splat.ply")
    trimesh.creation.box().export(tmp_path / "mesh.ply")
    ascii_ply(tmp_path / "points.ply", VERTICES_4, ["0 0 0", "1 0 0", "0 1 0", "0 0 1"])
    assert [is_splat(tmp_path / f"{n}.ply") for n in ("splat", "mesh", "points")] == [True, False, False]
    torch.testing.assert_close(gaussians_from_file(tmp_path / "splat.ply").means, splat.means)
    assert len(gaussians_from_file(tmp_path / "splat.ply", count=12)) == 12
    box = gaussians_from_file(tmp_path / "mesh.ply", points=600, size=0.5).means
    assert float(box.abs().amax(-1).amin()) > 0.2  # on the surface of a cube of half side 0.5 / sqrt(3)
    assert len(gaussians_from_file(tmp_path / "points.ply", points=100)) == 100


def test_copies_and_subsets_reach_the_count():
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]).double()
    cloud = PointCloud(corners * 100 + 500, torch.eye(3)[torch.arange(8) % 3])
    many = gaussians_from_cloud(cloud, 160, generator(), size=0.7)
    assert len(many) == 160
    torch.testing.assert_close(many.opacities, torch.full((160,), 0.1))
    distances, home = torch.cdist(many.means.double(), corners * 0.3).min(-1)
    assert torch.bincount(home, minlength=8).tolist() == [20] * 8  # 20 around each, as published
    assert float(distances.mean()) > 0.02
    torch.testing.assert_close(many.rgb, cloud.rgb[home], atol=1e-6, rtol=0)
    again = gaussians_from_cloud(cloud, 160, generator(), size=0.7)
    assert torch.equal(many.means, again.means)
    assert not torch.equal(many.means, gaussians_from_cloud(cloud, 160, generator(1), size=0.7).means)
    few = gaussians_from_cloud(PointCloud(torch.rand(500, 3, generator=generator())), 50, generator(), opacity=0.3)
    assert len(few) == 50
    torch.testing.assert_close(few.opacities, torch.full((50,), 0.3))
    torch.testing.assert_close(few.rgb, torch.full((50, 3), 0.5))


def test_scales_are_the_gap_to_three_neighbours_and_capped():
    line = torch.tensor([[0.0, 0, 0], [0.05, 0, 0], [0.1, 0, 0], [0.15, 0, 0], [9.0, 0, 0]])
    scales = from_points(line).scales
    assert float(scales[0, 0]) == pytest.approx(0.05 * math.sqrt((1 + 4 + 9) / 3), rel=1e-4)
    assert float(scales[4, 0]) == pytest.approx(0.2)
    assert float(from_points(torch.zeros(9, 3)).scales.amin()) == pytest.approx(1e-4)


def test_98_percent_fit_the_ball_whatever_strays():
    points = torch.cat([torch.rand(980, 3, generator=generator()) + 50, torch.full((20, 3), 1e4)]).double()
    start = gaussians_from_cloud(PointCloud(points[:990]), 990, generator(), size=0.6)
    inside = (start.means.norm(dim=-1) <= 0.6 + 1e-5).float().mean()
    assert 0.98 <= float(inside) < 1.0
    assert float(start.means[:980].abs().amax(0).amin()) > 0.25  # the cube fills the view; strays do not shrink it
    centre, radius = extent(points[:980])
    torch.testing.assert_close(centre, torch.full((3,), 50.5).double(), atol=0.05, rtol=0)
    assert 0.6 < radius < 0.87


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 3}, "count: expected at least 4"),
        ({"size": 0.0}, "init size: expected a length above 0"),
        ({"size": math.nan}, "init size: expected a length above 0"),
        ({"opacity": 1.0}, "init opacity: expected a number above 0 and below 1"),
        ({"up": "z"}, r"init up: expected one of auto, \+y"),
        ({"yaw": math.inf}, "init yaw: expected an angle"),
    ],
)
def test_unusable_values(tmp_path, values, message):
    trimesh.creation.box().export(tmp_path / "box.glb")
    with pytest.raises(InputError, match=message):
        gaussians_from_file(tmp_path / "box.glb", **values)


def random_splat(count=40, coefficients=15):
    g = generator()
    draw = lambda *shape: torch.randn(*shape, generator=g)
    return Gaussians(
        draw(count, 3) * 0.3, draw(count, 4), draw(count, 3) * 0.3 - 2.5, draw(count), draw(count, 1, 3) * 0.3,
        draw(count, coefficients, 3) * 0.3,
    )  # fmt: skip


def test_a_turned_splat_looks_the_same_to_a_camera_that_turned_with_it():
    """Centres, axes and view-dependent colours: azimuth 65 of the splat is azimuth 0 after a yaw of 65 degrees."""
    splat = random_splat()
    turned = oriented(splat, "auto", 65.0)
    pictures = [
        render(g, orbit_cameras([azimuth], 20.0, 3.0, 0.6, 48), backend="torch").colors
        for g, azimuth in ((splat, 65.0), (turned, 0.0))
    ]
    assert float(pictures[0].std()) > 0.02
    torch.testing.assert_close(pictures[1], pictures[0], atol=2e-4, rtol=0)
    assert oriented(splat) is splat


def test_the_known_flip_is_one_of_the_rotations():
    splat = random_splat()
    flipped, turned = flip_frame(splat), rotated(splat, upright("-y"))
    for name in ("means", "shN"):
        torch.testing.assert_close(getattr(turned, name), getattr(flipped, name), atol=1e-5, rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(turned.quats, flipped.quats, dim=-1).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_a_splat_file_with_another_axis_up(tmp_path):
    """Landmarks of a file whose Z is up, which a reader of 3DGS files takes for depth."""
    start = gaussians_from_cloud(
        PointCloud(torch.cat([torch.randn(60, 3, generator=generator()) * 0.05 + torch.eye(3)[i] for i in (1, 2, 0)]),
                   torch.eye(3).repeat_interleave(60, 0)), 180, generator()
    )  # fmt: skip
    in_file = rotated(start, upright("+z").T)  # along the axes of that file
    write_ply(flip_frame(in_file), tmp_path / "z.ply")  # which the writer flips into the file
    back = gaussians_from_file(tmp_path / "z.ply", up="+z")
    torch.testing.assert_close(back.means, start.means, atol=1e-5, rtol=0)
    assert_upright(back)
    small = gaussians_from_file(tmp_path / "z.ply", up="+z", size=0.3)
    torch.testing.assert_close(small.log_scales - back.log_scales, torch.full((180, 3), math.log(0.3 / 0.8)),
                               atol=1e-3, rtol=0)  # fmt: skip


def test_one_gaussian_is_centred_only():
    one = random_splat(1)
    small = fitted(one, 0.5)
    torch.testing.assert_close(small.means, torch.zeros(1, 3))
    assert torch.equal(small.log_scales, one.log_scales)


@pytest.mark.parametrize("suffix", [".stl", ".off"])
def test_formats_without_colours_stand_along_z(tmp_path, suffix):
    """A pyramid along Z with a foot towards -Y: the apex ends on top, the foot at the front."""
    base = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
    triangles = [(base[i], base[(i + 1) % 4], (0, 0, 2)) for i in range(4)] + [((-1, -1, 0), (1, -1, 0), (0, -3, 0))]
    corners = [v for t in triangles for v in t]
    path = tmp_path / f"pyramid{suffix}"
    if suffix == ".stl":
        body = b"".join(struct.pack("<12fH", 0, 0, 0, *[v for p in t for v in p], 0) for t in triangles)
        path.write_bytes(bytes(80) + struct.pack("<I", len(triangles)) + body)
    else:
        rows = [" ".join(map(str, v)) for v in corners] + [f"3 {3 * i} {3 * i + 1} {3 * i + 2}" for i in range(5)]
        path.write_text("\n".join([f"OFF\n{len(corners)} 5 0", *rows]) + "\n")
    means = gaussians_from_file(path, points=2000).means
    low, high = means.amin(0), means.amax(0)
    apex, foot = means[means[:, 1].argmax()], means[means[:, 2].argmax()]
    assert float(foot[1]) == pytest.approx(float(low[1]), abs=0.02)  # on the ground
    assert abs(float(foot[0])) < 0.1
    assert abs(float(apex[0])) < 0.1
    assert float(apex[2]) < float((low[2] + high[2]) / 2) - 0.1  # behind the middle, for the foot reaches forward
