"""Point clouds and meshes in PLY and OBJ as other programs write them."""

import struct

import numpy as np
import pytest
import torch
from gltf_files import HALVES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData, PlyElement

from dreamer_core.errors import InputError
from dreamer_core.formats.colors import unit_colors
from dreamer_core.initializers import gaussians_from_file
from dreamer_core.initializers.model_files import read_points
from dreamer_core.initializers.mtl import parse_map
from dreamer_core.initializers.references import references

RGB = np.random.default_rng(17).integers(20, 200, (60, 3))
PLACES = np.random.default_rng(18).random((60, 3))
STANDARD = ("red", "green", "blue")


def points(path, count=2000):
    cloud = read_points(path, count, torch.Generator().manual_seed(0), "--init")
    return cloud.points.numpy(), None if cloud.rgb is None else cloud.rgb.numpy()


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("names", "kind", "factor"),
    [
        (STANDARD, "u1", 1), (STANDARD, "<u2", 257), (STANDARD, "<u2", 1), (STANDARD, "<i4", 1),
        (STANDARD, "<f4", 1 / 255),
        (STANDARD, "<f8", 1 / 255), (STANDARD, "<f4", 1), (STANDARD, "<f8", 257), (("r", "g", "b"), "u1", 1),
        (("diffuse_red", "diffuse_green", "diffuse_blue"), "u1", 1), (("Red", "Green", "Blue"), "u1", 1),
    ],
)  # fmt: skip
def test_colours_of_points(tmp_path, names, kind, factor, text):
    rows = np.zeros(60, [*((a, "<f4") for a in "xyz"), *((n, kind) for n in names)])
    for i, a in enumerate("xyz"):
        rows[a], rows[names[i]] = PLACES[:, i], RGB[:, i] * factor
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(tmp_path / "a.ply"))
    where, rgb = points(tmp_path / "a.ply")
    np.testing.assert_allclose(where, PLACES, atol=1e-6)
    np.testing.assert_allclose(rgb, RGB / 255, atol=1e-5)


@given(st.lists(st.integers(0, 255), min_size=3, max_size=30), st.sampled_from(["u1", "u2", "i4", "f4", "f8"]))
def test_eight_bits_are_eight_bits_in_every_type(values, kind):
    """But for floats that are 0, 1 and 2 only, which are taken for colours up to 1."""
    array = np.array(values, kind)
    full = 255 if kind[0] != "f" or max(values) > 2 else 1
    np.testing.assert_allclose(unit_colors(array), np.minimum(np.array(values) / full, 1))


def test_floats_that_glow_or_are_not_numbers():
    np.testing.assert_allclose(unit_colors(np.array([0.2, 1.3, np.nan, -0.1, np.inf])), [0.2, 1, 0, 0, 1])


def test_columns_that_are_not_used_are_named(tmp_path, caplog):
    rows = np.zeros(5, [*((a, "f4") for a in ("x", "y", "z", "nx", "intensity"))])
    rows["x"] = range(5)
    extra = PlyElement.describe(np.zeros(1, [("view_px", "f4")]), "camera")
    PlyData([PlyElement.describe(rows, "vertex"), extra]).write(str(tmp_path / "a.ply"))
    points(tmp_path / "a.ply")
    lines = [r.getMessage() for r in caplog.records]
    assert [line.split(": ", 1)[1] for line in lines] == [
        "attributes that are not used: intensity", "elements that are not used: camera",
    ]  # fmt: skip


V6 = np.array([[0, 0, 0], [0.4, 0, 0], [0.4, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], "<f4")
POLYGONS = [(0, 1, 2, 3), (1, 4, 5), (1, 5, 2)]


def mesh_ply(order, kind="int", count="uchar", name="vertex_indices"):
    head = f"ply\nformat {order} 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
    head += f"element face 3\nproperty list {count} {kind} {name}\nproperty uchar flags\nend_header\n"
    if order == "ascii":
        text = "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in V6)
        return head.encode() + (text + "".join(f"{len(p)} {' '.join(map(str, p))} 7\n" for p in POLYGONS)).encode()
    mark = "<" if "little" in order else ">"
    codes = {"int": "i", "uint": "I", "ushort": "H", "uchar": "B", "char": "b"}
    faces = b"".join(struct.pack(f"{mark}{codes[count]}{len(p)}{codes[kind]}B", len(p), *p, 7) for p in POLYGONS)
    return head.encode() + V6.astype(f"{mark}f4").tobytes() + faces


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    ("kind", "count"), [("int", "uchar"), ("uint", "int"), ("ushort", "char"), ("uchar", "ushort")]
)
@pytest.mark.parametrize("name", ["vertex_indices", "vertex_index"])
def test_polygons_of_mixed_length(tmp_path, order, kind, count, name):
    (tmp_path / "a.ply").write_bytes(mesh_ply(order, kind, count, name))
    where, _ = points(tmp_path / "a.ply", 4000)
    assert (where[:, 0] < 0.4).mean() == pytest.approx(0.4, abs=0.01)
    np.testing.assert_allclose([where.min(0), where.max(0)], [[0, 0, 0], [1, 1, 0]], atol=0.02)


def test_a_face_that_names_no_vertex(tmp_path):
    data = mesh_ply("ascii").replace(b"3 1 4 5 7", b"3 1 4 6 7")
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(InputError, match="names vertex 6 of 6"):
        points(tmp_path / "a.ply")
    (tmp_path / "a.ply").write_bytes(mesh_ply("binary_little_endian")[:-4])
    with pytest.raises(InputError, match="declares 3 of element face and holds 2"):
        points(tmp_path / "a.ply")


def test_strips(tmp_path):
    head = "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    rows = "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in V6)
    (tmp_path / "a.ply").write_text(f"{head}{rows}8 0 1 3 2 -1 1 4 5\n")
    where, _ = points(tmp_path / "a.ply", 3000)
    assert (where[:, 0] < 0.4).mean() == pytest.approx(4 / 7, abs=0.01)


def half(x):
    return np.where(x[:, None] < 0.5, (1, 0, 0), (0, 0, 1))


def texture(path, pixels=HALVES):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("names", [("s", "t"), ("u", "v"), ("texture_u", "texture_v")])
def test_textures_by_vertices(tmp_path, names):
    texture(tmp_path / "skin é.png")
    head = "ply\nformat ascii 1.0\ncomment TextureFile skin é.png\nelement vertex 4\n"
    head += "".join(f"property float {n}\n" for n in ("x", "y", "z", *names))
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "a.ply").write_text(head + "0 0 0 0 0\n1 0 0 1 0\n1 1 0 1 1\n0 1 0 0 1\n4 0 1 2 3\n", encoding="utf-8")
    where, rgb = points(tmp_path / "a.ply")
    np.testing.assert_array_equal(rgb, half(where[:, 0]))
    assert references(tmp_path / "a.ply") == [tmp_path / "skin é.png"]


def test_textures_by_corners_of_faces(tmp_path, caplog):
    """MeshLab's: coordinates stored with each face, two pictures, one face without; the colour of faces stands in."""
    texture(tmp_path / "a.png")
    texture(tmp_path / "b.png", HALVES[:, ::-1].copy())
    head = "ply\nformat ascii 1.0\ncomment TextureFile a.png\ncomment TextureFile b.png\ncomment TextureFile gone.png\n"
    head += "element vertex 6\nproperty float x\nproperty float y\nproperty float z\nelement face 3\n"
    head += "property list uchar int vertex_indices\nproperty list uchar float texcoord\nproperty int texnumber\n"
    head += "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    v = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 0 0\n2 1 0\n"
    f = "4 0 1 2 3 8 0 0 1 0 1 1 0 1 0 9 9 9\n3 1 4 5 6 0 0 1 0 1 1 1 9 9 9\n3 1 5 2 0 0 0 255 0\n"
    (tmp_path / "a.ply").write_text(head + v + f)
    where, rgb = points(tmp_path / "a.ply", 4000)
    first, green = where[:, 0] < 1, where[:, 1] > where[:, 0] - 1
    np.testing.assert_array_equal(rgb[first], half(where[first, 0]))
    np.testing.assert_array_equal(rgb[~first & ~green], half(1 - (where[~first & ~green, 0] - 1)))
    np.testing.assert_allclose(rgb[~first & green], np.tile([0, 1, 0], ((~first & green).sum(), 1)))
    assert "its texture 'gone.png' is not there; read without" in caplog.text


def test_clouds_of_a_map_lose_nothing(tmp_path):
    """UTM, in doubles: the shape that is fitted is that of the same points about the origin."""
    for name, move in (("near", 0.0), ("far", 4_600_000.5)):
        rows = np.zeros(60, [(a, "<f8") for a in "xyz"])
        for i, a in enumerate("xyz"):
            rows[a] = PLACES[:, i] * 0.25 + move * (i < 2)
        PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / f"{name}.ply"))
        (tmp_path / f"{name}.obj").write_text("".join(f"v {r[0]!r} {r[1]!r} {r[2]!r}\n" for r in rows.tolist()))
    for suffix in (".ply", ".obj"):
        near, far = (gaussians_from_file(tmp_path / f"{n}{suffix}", points=60).means for n in ("near", "far"))
        torch.testing.assert_close(near, far, atol=1e-6, rtol=0)


QUAD_OBJ = (
    "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3 4/4\n"
)


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("map_Kd my tex.png", half),
        ("map_kd tex.png", half),
        ("map_Kd\ttex.png", half),
        ("map_Kd -s 1 1 1 -o 0 0 0 tex.png", half),
        ("map_Kd -clamp on my tex.png", half),
        ("map_Kd folder\\tex.png", half),
        ("map_Kd C:\\Users\\me\\tex.png", half),
        ("map_Kd ./folder/tex.png", half),
        ("map_Kd TEX.PNG", half),
        ("map_Kd my tex.png # the colours", half),
        ("map_Kd -colorspace sRGB my tex.png", half),
        ("map_Kd -blendu on -blendv off -texres 512 -imfchan r -bm 2 tex.png", half),
        ("map_Kd -s 2 1 1 tex.png", lambda x: half((x * 2) % 1)),
        ("map_Kd -s 2 tex.png", lambda x: half((x * 2) % 1)),
        ("map_Kd -s 2 -clamp on tex.png", lambda x: half(np.minimum(x * 2, 1))),
        ("map_Kd -o 0.5 0 0 tex.png", lambda x: half((x + 0.5) % 1)),
        ("map_Kd -o 0.5 my tex.png", lambda x: half((x + 0.5) % 1)),
        ("map_Kd -mm 0 0.5 tex.png", lambda x: half(x) * 0.5),
        ("map_Kd -mm 0.2 0.4 tex.png", lambda x: 0.2 + half(x) * 0.4),
        ("map_Kd 2.png", half),
        ("map_Kd -s 1 1 2.png", half),
    ],
)
def test_options_of_textures(tmp_path, line, want):
    for name in ("tex.png", "my tex.png", "folder/tex.png", "2.png"):
        texture(tmp_path / name)
    (tmp_path / "a.obj").write_text(QUAD_OBJ)
    (tmp_path / "a.mtl").write_text(f"newmtl m\nKd 0 1 0\n{line}\n")
    where, rgb = points(tmp_path / "a.obj")
    inside = np.abs((where[:, 0] * 4) % 1 - 0.5) < 0.48
    np.testing.assert_allclose(rgb[inside], want(where[inside, 0]), atol=0.005)
    assert len(references(tmp_path / "a.obj")) == 2


def test_options_that_are_not_used_are_named(tmp_path, caplog):
    texture(tmp_path / "t.png")
    (tmp_path / "a.obj").write_text(QUAD_OBJ)
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd -t 1 1 1 -cc on t.png\n")
    points(tmp_path / "a.obj")
    assert "options of 't.png' that are not used: turbulence, colour correction" in caplog.text
    (tmp_path / "a.mtl").write_text("newmtl m\nKd spectral a.rfl\nmap_Kd -sheen 2 t.png\n")
    points(tmp_path / "a.obj")
    assert "a colour as spectral is not used" in caplog.text
    assert "options of 't.png' that are not used: -sheen" in caplog.text
    (tmp_path / "a.mtl").write_text("newmtl m\nKd red\nmap_Kd gone.png\n")
    points(tmp_path / "a.obj")
    assert "a line that cannot be understood: kd red" in caplog.text
    assert "its texture 'gone.png' is not there; read without" in caplog.text


def test_materials_beyond_the_bound_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dreamer_core.initializers.mtl.AT_MOST", 1 << 20)
    (tmp_path / "a.obj").write_text(QUAD_OBJ)
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0 1 0\n" + (1 << 20) * "#")
    _, rgb = points(tmp_path / "a.obj")
    assert "a.mtl: only its first 1 MiB are read" in caplog.text
    np.testing.assert_allclose(rgb.mean(0), [0, 1, 0], atol=0.005)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_a_texture_of_some_name(text):
    found = parse_map(text.strip())
    assert text.strip().endswith(found.name)
    assert text.strip().startswith("-") or found.name == text.strip()


def test_transparency(tmp_path):
    """map_d by its grey or its alpha, d for all, holes at their share."""
    texture(tmp_path / "t.png", np.full((4, 4, 3), 255, np.uint8))
    grey = np.zeros((64, 64), np.uint8)
    grey[:, 32:] = 255
    texture(tmp_path / "grey.png", grey)
    texture(tmp_path / "alpha.png", np.dstack([np.full((64, 64, 3), 9, np.uint8), grey]))
    (tmp_path / "a.obj").write_text(QUAD_OBJ)
    for holes in ("grey.png", "alpha.png"):
        for color in ("map_Kd t.png\n", ""):
            (tmp_path / "a.mtl").write_text(f"newmtl m\nKd 1 1 1\n{color}map_d {holes}\n")
            where, rgb = points(tmp_path / "a.obj")
            assert len(where) == 2000
            assert where[:, 0].min() >= 0.5
            np.testing.assert_allclose(rgb, 1)
    (tmp_path / "a.obj").write_text(QUAD_OBJ + "usemtl n\nv 5 0 0\nv 6 0 0\nv 6 1 0\nv 5 1 0\nf -4 -3 -2 -1\n")
    for line in ("d 0.5", "d -halo 0.5", "Tr 0.5"):
        (tmp_path / "a.mtl").write_text(f"newmtl m\nKd 1 1 1\nnewmtl n\nKd 0 1 0\n{line}\n")
        where, rgb = points(tmp_path / "a.obj", 3000)
        assert (where[:, 0] > 4).mean() == pytest.approx(1 / 3, abs=0.02)
        np.testing.assert_allclose(rgb[where[:, 0] > 4], np.tile([0, 1, 0], ((where[:, 0] > 4).sum(), 1)))


def test_several_materials_and_files_of_them(tmp_path, caplog):
    (tmp_path / "one.mtl").write_text("newmtl red one\nKd 1 0 0\n")
    (tmp_path / "two b.mtl").write_text("newmtl blue\nKd 0 0 1\n")
    (tmp_path / "three.mtl").write_text("newmtl green\nKd 0 1 0\n")
    quad = "".join(f"v {x} 0 0\nv {x + 1} 0 0\nv {x + 1} 1 0\nv {x} 1 0\n" for x in (0, 2, 4, 6))
    (tmp_path / "a.obj").write_text(
        f"mtllib one.mtl three.mtl\nmtllib two b.mtl\nmtllib gone.mtl\n{quad}usemtl red one\nf 1 2 3 4\n"
        "usemtl blue\nf 5 6 7 8 # a comment\nusemtl green\nf 9 10 \\\n11 12\nusemtl none\nf 13 14 15 16\n"
    )
    where, rgb = points(tmp_path / "a.obj", 4000)
    for low, want in ((0, (1, 0, 0)), (2, (0, 0, 1)), (4, (0, 1, 0)), (6, (0.5, 0.5, 0.5))):
        mine = (where[:, 0] >= low) & (where[:, 0] <= low + 1)
        assert mine.sum() == 1000
        np.testing.assert_allclose(rgb[mine], np.tile(want, (1000, 1)))
    assert "its file of materials 'gone.mtl' is not there" in caplog.text
    assert "its material 'none' is not there" in caplog.text
    assert [p.name for p in references(tmp_path / "a.obj")] == ["one.mtl", "three.mtl", "two b.mtl"]


def test_colours_of_vertices_beside_a_texture(tmp_path):
    """Where a face has no coordinates, its vertices' colours count; where it has, the texture."""
    texture(tmp_path / "t.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0 1 0\nmap_Kd t.png\n")
    rows = "".join(f"v {x} {y} 0 128 255 0\n" for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (5, 0), (6, 0), (6, 1)))
    (tmp_path / "a.obj").write_text(
        f"mtllib a.mtl\n{rows}vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3 4/4\nf 5 6 7\n"
    )
    where, rgb = points(tmp_path / "a.obj", 3000)
    left = where[:, 0] < 2
    np.testing.assert_array_equal(rgb[left], half(where[left, 0]))
    np.testing.assert_allclose(rgb[~left], np.tile([128 / 255, 1, 0], ((~left).sum(), 1)), atol=1e-6)


@pytest.mark.parametrize("rest", ["", " 1", " 0.25 0.5 0.75", " 0.25 0.5 0.75 1", " 64 128 191"])
def test_columns_of_vertices(tmp_path, rest):
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    (tmp_path / "a.obj").write_text("".join(f"v {x} {y} 0{rest}\n" for x, y in corners) + "f 1 2 3 4\n")
    where, rgb = points(tmp_path / "a.obj", 100)
    assert where.shape == (100, 3)
    if len(rest) > 3:
        values = np.array(rest.split()[:3], float)
        np.testing.assert_allclose(rgb, np.tile(values / (255 if values.max() > 2 else 1), (100, 1)), atol=1e-6)
    else:
        assert rgb is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0\n", "line 1 cannot be understood: 'v 0 0'"),
        ("v 0 0 0\nv 1 0 x\n", "line 2 cannot be understood"),
        ("v 0 0 0\nf 1 2 zero\n", "line 2 cannot be understood"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 4\n", "names vertex 4 of 3"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 0 1 2\n", "line 4 cannot be understood"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf -1 -2 -5\n", "line 4 cannot be understood"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nf 1/1 2/1 3/-2\n", "line 5 cannot be understood"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1/1 2/1 3/1\n", "names texture coordinate 1 of 0"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 99999999999999999999\n", "line 4 cannot be understood"),
    ],
)
def test_broken_objs_are_one_line(tmp_path, text, message):
    (tmp_path / "a.obj").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        points(tmp_path / "a.obj")
    assert str(caught.value).startswith("--init: expected ")


def test_a_byte_order_mark_takes_no_vertex_along(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", encoding="utf-8-sig")
    assert len(points(tmp_path / "a.obj")[0]) == 2000


def test_negative_numbers_count_from_where_they_stand(tmp_path):
    block = "v {0} 0 0\nv {1} 0 0\nv {1} 1 0\nf -3 -2 -1\n"
    (tmp_path / "a.obj").write_text(block.format(0, 1) + block.format(4, 5))
    where, _ = points(tmp_path / "a.obj", 1000)
    assert ((where[:, 0] <= 1).sum(), (where[:, 0] >= 4).sum()) == (500, 500)


def test_colours_of_zbrush_are_named_and_old_faces_read(tmp_path, caplog):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\n#MRGB ffff0000ff00ff00ff0000ff\nfo 1 2 3\n")
    assert len(points(tmp_path / "a.obj", 100)[0]) == 100
    assert "rows of ZBrush's vertex colours (#MRGB) are left out (1)" in caplog.text


def test_what_is_no_surface_is_named(tmp_path, caplog):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 2 2 2\nl 1 2\nl 2 3\np 1\ncurv 0 1 1 2\n")
    assert len(points(tmp_path / "a.obj")[0]) == 4
    assert "lines are left out (2)" in caplog.text
    assert "free-form curves and surfaces are left out (1)" in caplog.text


QUAD_ROWS = ["0 0 0", "1 0 0", "1 1 0", "0 1 0"]


@pytest.mark.parametrize(
    ("head", "columns", "want"),
    [
        ("OFF", "", None),
        ("COFF", " 255 128 0 255", (1, 128 / 255, 0)),
        ("COFF", " 1.0 0.5 0.0 1.0", (1, 0.5, 0)),
        ("CNOFF", " 0 0 1 0.25 0.5 1.0 1", (0.25, 0.5, 1)),
        ("NOFF", " 0 0 1", None),
        ("STOFF", " 0 0", None),
    ],
)
@pytest.mark.parametrize("joined", [" ", "\n", "\n# a comment\n\n"])
def test_off_with_colours_of_vertices(tmp_path, head, columns, want, joined):
    rows = "\n".join(row + columns for row in QUAD_ROWS)
    (tmp_path / "a.off").write_text(f"{head}{joined}4 1 0\n{rows}\n4 0 1 2 3\n")
    where, rgb = points(tmp_path / "a.off", 500)
    np.testing.assert_allclose(where.max(0), [1, 1, 0], atol=0.05)
    if want is None:
        assert rgb is None
    else:
        np.testing.assert_allclose(rgb, np.tile(want, (500, 1)), atol=1e-6)


@pytest.mark.parametrize("color", ["0 128 255", "0 128 255 255", "0.0 0.50196 1.0"])
def test_off_with_colours_of_faces(tmp_path, color):
    body = "\n".join([*QUAD_ROWS, f"3 0 1 2 {color}", "3 0 2 3"])
    (tmp_path / "a.off").write_text(f"OFF\n4 2 0\n{body}\n")
    where, rgb = points(tmp_path / "a.off", 1000)
    first = where[:, 1] < where[:, 0]
    np.testing.assert_allclose(rgb[first], np.tile([0, 128 / 255, 1], (first.sum(), 1)), atol=1e-3)
    np.testing.assert_allclose(rgb[~first], 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OFF BINARY\n1 1 1\n", "OFF, COFF, NOFF or STOFF in ASCII"),
        ("4OFF\n1 0 0\n0 0 0 1\n", "begins with '4OFF'"),
        ("OFF\n1000000000 5 0\n0 0 0\n", "declares 1,000,000,000 vertices and 5 faces in 1 lines"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "names vertex 7 of 3"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n9 0 1 2\n", "cannot be understood"),
        ("OFF\n1 0 0\nx y z\n", "cannot be understood"),
    ],
)
def test_broken_offs_are_one_line(tmp_path, text, message):
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(InputError, match=message):
        points(tmp_path / "a.off")


def stl(header, spare, after=b""):
    corners = [((0, 0, 0), (1, 0, 0), (1, 1, 0)), ((0, 0, 0), (1, 1, 0), (0, 1, 0))]
    rows = b"".join(struct.pack("<12fH", 0, 0, 1, *sum(c, ()), s) for c, s in zip(corners, spare))
    return header.ljust(80, b" ") + struct.pack("<I", 2) + rows + after


@pytest.mark.parametrize(
    ("header", "spare", "want"),
    [
        (b"plain", (0, 0), None),
        (b"solid in binary", (0, 0), None),
        (b"viscam", (1 << 15 | 31 << 10 | 15 << 5, 0), ((1, 15 / 31, 0), (0.5,) * 3)),
        (b"x COLOR=\xff\x80\x00\xff y", (31 | 15 << 5, 1 << 15), ((1, 15 / 31, 0), (1, 128 / 255, 0))),
    ],
)
@pytest.mark.parametrize("after", [b"", b"some more"])
def test_stl_and_its_colours(tmp_path, header, spare, want, after):
    (tmp_path / "a.stl").write_bytes(stl(header, spare, after))
    where, rgb = points(tmp_path / "a.stl", 1000)
    first = where[:, 1] < where[:, 0]
    assert first.sum() == 500
    if want is None:
        assert rgb is None
    else:
        for mine, color in ((first, want[0]), (~first, want[1])):
            np.testing.assert_allclose(rgb[mine], np.tile(color, (mine.sum(), 1)), atol=1e-6)


def test_stl_in_text_and_cut_short(tmp_path):
    corners = ["0 0 0", "1 0 0", "1 1 0", "0 0 0", "1 1 0", "0 1e0 0"]
    facets = ""
    for i in (0, 3):
        rows = "".join(f"  Vertex {c}\n" for c in corners[i : i + 3])
        facets += f"FACET normal 0 0 1\n outer loop\n{rows} endloop\nendfacet\n"
    (tmp_path / "a.stl").write_text(f"solid a vertex\n{facets}endsolid\n")
    np.testing.assert_allclose(points(tmp_path / "a.stl")[0].max(0), [1, 1, 0], atol=0.05)
    (tmp_path / "b.stl").write_text(f"solid a\n{facets[:68]}\n")
    with pytest.raises(InputError, match="in the middle of a triangle, after 2 vertices"):
        points(tmp_path / "b.stl")
    (tmp_path / "c.stl").write_bytes(stl(b"x", (0, 0))[:-9])
    with pytest.raises(InputError, match="declares 2 triangles in 175 bytes"):
        points(tmp_path / "c.stl")
