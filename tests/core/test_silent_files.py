"""Files that used to come in wrong without a word: right now, told, or refused by name."""

from __future__ import annotations

import logging
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dreamer_core.batch.work_list import read_work_list
from dreamer_core.errors import InputError
from dreamer_core.formats import load_gaussians
from dreamer_core.formats.colors import unit_colors
from dreamer_core.initializers.model_files import read_points
from dreamer_core.teachers.sdxl.parts import _tensors

XYZ = "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
FACET = "facet normal 0 0 1\nouter loop\nvertex {0} 0 0\nvertex {1} 0 0\nvertex {0} 1 0\nendloop\nendfacet\n"


@pytest.fixture
def read(tmp_path, caplog):
    """Points of a file of that name and content, and the lines that were said."""

    def points(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = read_points(path, 500, torch.Generator().manual_seed(0))
        return found, caplog.messages

    return points


def test_rows_of_a_ply_that_are_longer_or_more_than_declared(read):
    head = XYZ.format(2) + "end_header\n"
    with pytest.raises(InputError, match="first row of element vertex holds 4 words where its header declares 3"):
        read("a.ply", head + "0 0 0 9\n1 0 0 9\n")
    found, told = read("a.ply", head + "0 0 0\n1 0 0\n7 7 7\n")
    assert found.points.max() == 1
    assert "3 words behind the 2 declared rows of vertex are left out" in told[0]
    for rows in ("0 0 0 1 0 0\n", "0 0 0\r1 0 0\r"):  # on one line; other ends of lines
        found, told = read("a.ply", (head + rows).replace("\n", "\r") if "\r" in rows else head + rows)
        assert (found.points.max(), told) == (1, [])


def test_faces_of_a_ply_under_a_name_of_their_own(read):
    head = XYZ.format(3) + "element face 1\nproperty list uchar int corners\nend_header\n"
    found, _ = read("a.ply", head + "0 0 0\n3 0 0\n3 3 0\n3 0 1 2\n")
    assert len(found) == 500


def test_binary_stl_of_another_count(read):
    rows = [struct.pack("<12fH", 0, 0, 1, k, 0, 0, k + 1, 0, 0, k, 1, 0, 0) for k in range(10)]
    found, told = read("a.stl", bytes(80) + struct.pack("<I", 2) + b"".join(rows))
    assert found.points.max() > 9
    assert "declares 2 triangles and holds 10; all are read" in told[0]


def test_stl_in_text_that_is_cut_short_between_triangles(read):
    whole = "solid vertex 1 2 3\n" + "".join(FACET.format(k, k + 1) for k in range(3)) + "endsolid\n"
    assert read("a.stl", whole)[0].points.max() > 2
    assert read("a.stl", whole.replace("\n", "\r"))[0].points.max() > 2
    for end in (whole.index("endsolid"), whole.rindex("facet normal")):
        with pytest.raises(InputError, match="cannot be read"):
            read("a.stl", whole[:end])


@pytest.mark.parametrize(
    ("material", "told"),
    [
        ("Kd 1 0 0\nd 0", "an opacity of 0 is taken for 1"),
        ("Kd 1 0 0\nmap_Kd red.png", "the colour Kd beside a texture is not used"),
        ("Ke 1 1 1", "ke not used"),
        ("map_Kd red.png\nmap_d -o 0.5 0 0 red.png", "map_d is placed as map_Kd is"),
    ],
)
def test_materials_say_what_is_read_in_another_way(read, tmp_path, material, told):
    from PIL import Image

    Image.new("RGB", (2, 2), "red").save(tmp_path / "red.png")
    (tmp_path / "a.mtl").write_text(f"newmtl m\n{material}\n")
    places = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
    _, lines = read("a.obj", f"mtllib a.mtl\n{places}usemtl m\nf 1/1 2/2 3/3\n")
    assert any(told in line for line in lines)


def test_one_colour_far_too_bright_does_not_make_the_others_black():
    colours = np.full((500, 3), 0.5)
    colours[0, 0] = 3.0
    np.testing.assert_allclose(unit_colors(colours)[1:], 0.5)
    whole = np.zeros((500, 3))
    whole[0, 0] = 128.0  # whole numbers up to 255, most of them black
    assert unit_colors(whole)[0, 0] == pytest.approx(128 / 255)


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("a.csv", 'prompt\n"a mug\na chair\n', "line 1"),
        ("a.csv", "prompt\n" + "a" * 140_000 + "\n", "line 1"),
        ("a.jsonl", '{"prompt": "a", "name": null}\n', "line 1: name"),
    ],
)
def test_work_lists_that_say_less_than_they_seem_to(tmp_path, name, text, field):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_work_list(tmp_path / name)
    assert error.value.field == field


def test_work_lists_with_other_marks_of_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a\u2028b"}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text("\n\nprompt,seed\na,1\n")
    assert [i.options["prompt"] for i in read_work_list(tmp_path / "a.jsonl")[0]] == ["a\u2028b"]
    assert [i.line for i in read_work_list(tmp_path / "a.csv")[0]] == [4]


def test_quantised_weights_are_not_taken_as_they_stand(tmp_path):
    save_file({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.weight is int8: weights that are quantised need scales"):
        _tensors(tmp_path / "a.safetensors", "", torch.float32)


def test_what_the_header_of_a_splat_declares_is_told(tmp_path, caplog):
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2"]
    names += ["rot_0", "rot_1", "rot_2", "rot_3"]
    head = "ply\nformat ascii 1.0\ncomment Vertical Axis: z\nelement vertex 1\n"
    head += "".join(f"property float {name}\n" for name in names)
    head += "element color_space 1\nproperty uchar value\nelement odd 1\nproperty uchar value\nend_header\n"
    (tmp_path / "a.ply").write_text(head + " ".join(["1"] * 14) + "\n1\n2\n")
    assert len(load_gaussians(tmp_path / "a.ply")) == 1
    told = " ".join(caplog.messages)
    for words in ("declares z as its vertical axis", "another colour space than sRGB", "not used: odd"):
        assert words in told


def test_colours_of_an_off_and_what_it_does_not_announce(read):
    found, told = read("a.off", "COFF\n3 1 0\n0 0 0 2 1 0 255\n1 0 0 2 1 0 255\n0 1 0 2 1 0 255\n3 0 1 2\n")
    np.testing.assert_allclose(found.rgb[0].numpy(), np.array([2, 1, 0]) / 255, atol=1e-6)
    assert told == []
    _, told = read("a.off", "OFF\n3 1 0\n0 0 0 9 9 9\n1 0 0 9 9 9\n0 1 0 9 9 9\n3 0 1 2 7\n")
    assert "does not announce" in told[0]
    assert "indices of a map" in told[1]


RING = [(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]


def u_shape(kind, turned):
    """A U of area 7 in a square of 9, from every corner, in both senses, out of the plane z = 0."""
    ring = [RING[(i + turned) % 8] for i in range(8)][:: -1 if turned % 2 else 1]
    places = [(x, 0.5 * x, y) for x, y in ring]
    rows = "".join("{} {} {}\n".format(*p) for p in places)
    if kind == "obj":
        return "".join(f"v {row}\n" for row in rows.splitlines()) + "f 1 2 3 4 5 6 7 8\n"
    if kind == "off":
        return f"OFF\n8 1 0\n{rows}8 0 1 2 3 4 5 6 7\n"
    return (
        XYZ.format(8) + f"element face 1\nproperty list uchar int vertex_index\nend_header\n{rows}8 0 1 2 3 4 5 6 7\n"
    )


@pytest.mark.parametrize("kind", ["obj", "off", "ply"])
@pytest.mark.parametrize("turned", range(8))
def test_polygons_that_are_not_convex_stay_within_their_outline(read, kind, turned):
    points = read(f"a.{kind}", u_shape(kind, turned))[0].points.numpy()
    x, y = points[:, 0], points[:, 2]
    assert not ((x > 1.001) & (x < 1.999) & (y > 1.001)).any()
    for part, share in (((x < 1) & (y > 1), 2 / 7), ((x > 2) & (y > 1), 2 / 7), (y < 1, 3 / 7)):
        assert part.mean() == pytest.approx(share, abs=0.08)


def test_corners_of_a_mended_polygon_keep_their_coordinates(read, tmp_path):
    """Coordinates equal to places: each point has the colour of its place in the picture."""
    from PIL import Image

    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[None] * 4, np.arange(63, -1, -1)[:, None] * 4
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd ramp.png\n")
    lines = "".join(f"v {x} {y} 0\nvt {x / 3} {y / 3}\n" for x, y in RING)
    found, _ = read("a.obj", f"mtllib a.mtl\n{lines}usemtl m\nf " + " ".join(f"{i}/{i}" for i in range(1, 9)) + "\n")
    np.testing.assert_allclose(found.rgb[:, :2].numpy(), found.points[:, :2].numpy() / 3, atol=0.03)
