"""Splats as other programs write them: bad rows, other columns, other places in the file."""

import logging
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from dreamer_core.errors import InputError
from dreamer_core.formats import load_gaussians, save_gaussians
from dreamer_core.formats.ply_elements import Lists, PlyFile
from dreamer_core.formats.ply_syntax import BrokenPlyError, parse_header
from dreamer_core.gaussians import SH_C0, Gaussians

SPLAT = [
    "x",
    "y",
    "z",
    "f_dc_0",
    "f_dc_1",
    "f_dc_2",
    "opacity",
    "scale_0",
    "scale_1",
    "scale_2",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
]
TURN = np.array([1, -1, -1])


def table(n=50, names=SPLAT, seed=0, kind="<f4"):
    """Random rows under these names."""
    rows = np.zeros(n, [(name, kind) for name in names])
    values = np.random.default_rng(seed).normal(size=(len(names), n))
    for name, column in zip(names, values):
        rows[name] = column
    return rows


def written(path, rows, before=(), after=(), **options):
    """With plyfile, an independent writer."""
    elements = [*before, PlyElement.describe(rows, "vertex"), *after]
    PlyData(elements, **options).write(str(path))
    return path


def test_legal_infinities_are_numbers(tmp_path, caplog):
    rows = table()
    rows["opacity"][:2], rows["scale_2"][2] = (np.inf, -np.inf), -np.inf
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    assert len(g) == 50
    assert g.check_finite() is None
    np.testing.assert_allclose(g.opacities[:2], [1, 0], atol=1e-5)
    assert float(g.scales[2, 2]) < 1e-8
    np.testing.assert_array_equal(g.logit_opacities[2:], rows["opacity"][2:])  # the others to the last bit
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("column", "value"),
    [("x", np.nan), ("y", np.inf), ("opacity", np.nan), ("scale_1", np.inf), ("scale_1", 89.0), ("scale_0", np.nan),
     ("rot_2", np.inf), ("rot_0", np.nan), ("f_dc_1", -np.inf), ("f_rest_4", np.nan)],
)  # fmt: skip
def test_a_bad_row_goes_alone_and_is_counted(tmp_path, caplog, column, value):
    rows = table(names=[*SPLAT, *(f"f_rest_{i}" for i in range(9))])
    rows[column][7] = value
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    np.testing.assert_array_equal(g.means, np.stack([np.delete(rows[a], 7) for a in "xyz"], -1) * TURN)
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path / 'a.ply'}: 1 of 50 Gaussians left out (1 with NaN or inf)"
    ]


def test_rotations_of_no_length_go_and_odd_lengths_stay(tmp_path, caplog):
    rows = table()
    for i in range(4):
        rows[f"rot_{i}"][:20] = 0
        rows[f"rot_{i}"][20] *= 1e-30
        rows[f"rot_{i}"][21] *= 1e30
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    assert len(g) == 30
    assert "20 of 50 Gaussians left out (20 with a rotation of length 0)" in caplog.text
    unit = torch.nn.functional.normalize(g.quats, dim=-1)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(30))
    want = np.stack([table()[f"rot_{i}"][20:22] for i in range(4)], -1)
    want /= np.linalg.norm(want, axis=-1, keepdims=True)
    w, x, y, z = unit[:2].double().numpy().T
    np.testing.assert_allclose(np.abs((np.stack([x, -w, z, -y], -1) * want).sum(-1)), 1, atol=1e-6)


def test_nothing_but_bad_rows_is_refused(tmp_path):
    rows = table(3)
    rows["x"] = np.nan
    with pytest.raises(InputError, match=r"one Gaussian that can be drawn, got .*a\.ply with 3 that hold NaN"):
        load_gaussians(written(tmp_path / "a.ply", rows))
    zero = struct.pack("<6f8B", 0, 0, 0, 1, 1, 1, 255, 0, 0, 255, 128, 128, 128, 128)
    (tmp_path / "a.splat").write_bytes(zero)
    with pytest.raises(InputError, match="rotation of length 0"):
        load_gaussians(tmp_path / "a.splat")
    (tmp_path / "a.splat").write_bytes(zero + zero[:-1] + b"\xff")
    assert len(load_gaussians(tmp_path / "a.splat")) == 1


@pytest.mark.parametrize(
    ("names", "kind", "full"),
    [(("red", "green", "blue"), "u1", 255), (("r", "g", "b"), "u1", 255), (("red", "green", "blue"), "<f4", 1),
     (("red", "green", "blue"), "<f4", 255), (("red", "green", "blue"), "<u2", 65535),
     (("diffuse_red", "diffuse_green", "diffuse_blue"), "u1", 255)],
)  # fmt: skip
@pytest.mark.parametrize("text", [False, True])
def test_display_colours_in_place_of_sh(tmp_path, names, kind, full, text):
    rest = [n for n in SPLAT if not n.startswith("f_dc")]
    plain = table(names=rest)
    rows = np.zeros(50, [*((n, "<f4") for n in rest), *((n, kind) for n in names)])
    for n in rest:
        rows[n] = plain[n]
    rgb = np.random.default_rng(1).integers(0, 256, (50, 3)) / 255
    for i, n in enumerate(names):
        rows[n] = np.round(rgb[:, i] * full) if full > 1 else rgb[:, i]
    g = load_gaussians(written(tmp_path / "a.ply", rows, text=text))
    np.testing.assert_allclose(g.rgb, rgb, atol=1e-5)
    np.testing.assert_allclose(g.means, np.stack([plain[a] for a in "xyz"], -1) * TURN, rtol=1e-5)


def test_2dgs_and_one_scale_for_all(tmp_path):
    flat = load_gaussians(written(tmp_path / "2d.ply", table(names=[n for n in SPLAT if n != "scale_2"])))
    torch.testing.assert_close(flat.scales[:, 2], torch.full((50,), 1e-6))
    ball = [n for n in SPLAT if n not in ("scale_1", "scale_2") and not n.startswith("rot")]
    round_ = load_gaussians(written(tmp_path / "1.ply", table(names=ball)))
    np.testing.assert_array_equal(round_.log_scales, np.stack([table(names=ball)["scale_0"]] * 3, -1))
    with pytest.raises(InputError, match="without opacity, rot_0, rot_1, rot_2, rot_3"):
        load_gaussians(written(tmp_path / "b.ply", table(names=[*SPLAT[:6], "scale_0", "scale_1"])))


def test_mip_splatting_has_its_filter_applied(tmp_path):
    names = [*SPLAT, "filter_3D"]
    rows = table(names=names)
    rows["filter_3D"] = 0.2
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    scales = np.exp(np.stack([rows[f"scale_{i}"] for i in range(3)], -1).astype(float))
    wide = np.sqrt(scales**2 + 0.04)
    np.testing.assert_allclose(g.scales, wide, rtol=1e-5)
    alpha = 1 / (1 + np.exp(-rows["opacity"].astype(float)))
    np.testing.assert_allclose(g.opacities, alpha * (scales / wide).prod(-1), rtol=1e-4)


@pytest.mark.parametrize(("count", "kept", "degree"), [(9, 3, 1), (6, 2, 1), (24, 8, 2), (30, 10, 3), (45, 15, 3)])
def test_any_number_of_harmonics(tmp_path, count, kept, degree):
    rows = table(names=[*SPLAT, *(f"f_rest_{i}" for i in range(count))])
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    assert g.sh_degree == degree
    want = np.stack([[rows[f"f_rest_{c * kept + k}"] for c in range(3)] for k in range(kept)])  # [K, 3, N]
    np.testing.assert_array_equal(g.shN[:, :kept].abs(), np.abs(want.transpose(2, 0, 1)))
    assert not g.shN[:, kept:].any()


def test_harmonics_above_degree_3_go_with_a_line(tmp_path, caplog):
    rows = table(names=[*SPLAT, *(f"f_rest_{i}" for i in range(72))])
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    np.testing.assert_array_equal(g.shN[:, 14, 1].abs(), np.abs(rows["f_rest_38"]))
    assert "harmonics above degree 3 are left out" in caplog.text


def test_gaps_among_the_harmonics_are_refused(tmp_path):
    for names in ([f"f_rest_{i}" for i in range(10)], [f"f_rest_{i}" for i in (0, 1, 2, 4, 5, 6, 7, 8, 9)]):
        with pytest.raises(InputError, match="f_rest attributes without gaps"):
            load_gaussians(written(tmp_path / "a.ply", table(names=[*SPLAT, *names])))


def test_harmonics_that_are_all_zero_are_padding(tmp_path):
    """Files of one fixed layout have room for degree 3 whatever they hold."""
    names = [*SPLAT, *(f"f_rest_{i}" for i in range(45))]
    rows = table(names=names)
    for i in range(45):
        if i % 15 >= 3:
            rows[f"f_rest_{i}"] = 0
    assert load_gaussians(written(tmp_path / "a.ply", rows)).sh_degree == 1
    for i in range(45):
        rows[f"f_rest_{i}"] = 0
    assert load_gaussians(written(tmp_path / "a.ply", rows)).sh_degree == 0


def test_columns_that_are_not_used_are_named(tmp_path, caplog):
    load_gaussians(written(tmp_path / "a.ply", table(names=["nx", "semantic_0", *SPLAT])))
    assert "attributes that are not used: semantic_0" in caplog.text


LISTS = np.empty(3, [("images", object)])
LISTS["images"] = [np.array([1], "i4"), np.array([2, 3], "i4"), np.array([], "i4")]
BESIDE = {
    "lists of several lengths": PlyElement.describe(LISTS, "track", val_types={"images": "i4"}),
    "numbers": PlyElement.describe(np.array([(1.5, 2)], [("a", "f8"), ("b", "u1")]), "camera"),
    "an empty element": PlyElement.describe(np.zeros(0, [("a", "f4")]), "nothing"),
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("options", [{}, {"byte_order": ">"}, {"text": True}], ids=["little", "big", "ascii"])
@pytest.mark.parametrize("first", [True, False])
def test_other_elements_before_and_after(tmp_path, beside, options, first):
    order = options.get("byte_order", "<")
    rows = table(kind=order + "f4")
    other = [BESIDE[beside]]
    path = written(tmp_path / "a.ply", rows, *((other, ()) if first else ((), other)), **options)
    want = np.stack([rows[a] for a in "xyz"], -1) * TURN
    np.testing.assert_allclose(load_gaussians(path).means, want, rtol=1e-5)


def binary(header_lines, rows, newline="\n", encoding="ascii", after=b""):
    lines = ["ply", "format binary_little_endian 1.0", *header_lines, f"element vertex {len(rows)}"]
    lines += [*(f"property float {n}" for n in rows.dtype.names), "end_header", ""]
    return newline.join(lines).encode(encoding) + rows.tobytes() + after


@pytest.mark.parametrize(
    "content",
    [
        binary(["comment Exporté"], table(), encoding="latin-1"),
        binary(["comment 导出"], table(), encoding="gbk"),
        binary(["comment the end_header comes", "obj_info x"], table()),
        binary(["", "  "], table()),
        binary([], table(), newline="\r\n"),
        binary([], table(), newline="\r"),
        binary([], table(), after=b"\xff" * 19),
    ],
    ids=["latin-1", "gbk", "end_header in a comment", "empty lines", "crlf", "cr", "trailing bytes"],
)
def test_headers_of_every_kind(tmp_path, content):
    (tmp_path / "a.ply").write_bytes(content)
    g = load_gaussians(tmp_path / "a.ply")
    np.testing.assert_array_equal(g.means, np.stack([table()[a] for a in "xyz"], -1) * TURN)


def test_properties_of_every_type_and_order(tmp_path):
    kinds = ["f8", "i2", "u1", "f4", "i4", "u2", "i1"]
    rows = np.zeros(40, [(name, kinds[i % 7]) for i, name in enumerate(reversed(SPLAT))])
    draw = np.random.default_rng(3)
    for name in SPLAT:
        rows[name] = draw.integers(1, 50, 40)
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    np.testing.assert_array_equal(g.means, np.stack([rows[a] for a in "xyz"], -1) * TURN)
    np.testing.assert_array_equal(g.log_scales[:, 1], rows["scale_1"])


def test_more_rows_than_bytes_take_no_memory(tmp_path):
    import tracemalloc

    content = binary([], table()).replace(b"vertex 50", b"vertex 2000000000")
    (tmp_path / "a.ply").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match="declares 2,000,000,000 of element vertex and holds 50"):
        load_gaussians(tmp_path / "a.ply")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plyx\nformat ascii 1.0\nend_header\n", "line 'ply'"),
        ("ply\nformat ascii 1.0\n", "no end_header"),
        ("ply\nend_header\n", "no format line"),
        ("ply\nformat binary 1.0\nend_header\n", "format is 'binary 1.0'"),
        ("ply\nformat ascii 1.0\nelement vertex many\nend_header\n", "element vertex many"),
        ("ply\nformat ascii 1.0\nelement vertex -1\nend_header\n", "declares -1"),
        ("ply\nformat ascii 1.0\nproperty float x\nend_header\n", "before any element"),
        ("ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\nend_header\n", "property quad x"),
        ("ply\nformat ascii 1.0\nelement vertex 1\nproperty list float int x\nend_header\n", "length is a float"),
    ],
)
def test_broken_headers_are_named(text, message):
    with pytest.raises(BrokenPlyError, match=message):
        parse_header(text.encode())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_elements_are_read_as_plyfile_writes_them(tmp_path, data):
    """Any mixture of numbers and lists, in every format."""
    kinds = st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
    rows = data.draw(st.integers(1, 5))
    elements, want = [], []
    for k in range(data.draw(st.integers(1, 3))):
        columns = {}
        for c in range(data.draw(st.integers(1, 4))):
            kind, is_list = data.draw(kinds), data.draw(st.booleans())
            number = st.integers(0, 100)
            if is_list:
                lists = [np.array(data.draw(st.lists(number, max_size=4)), kind) for _ in range(rows)]
                columns[f"c{c}"] = (kind, lists)
            else:
                columns[f"c{c}"] = (kind, np.array(data.draw(st.lists(number, min_size=rows, max_size=rows)), kind))
        array = np.empty(rows, [(n, object if isinstance(v, list) else kind) for n, (kind, v) in columns.items()])
        for n, (_, v) in columns.items():
            for i in range(rows):
                array[n][i] = v[i]
        types = {n: kind for n, (kind, v) in columns.items() if isinstance(v, list)}
        elements.append(PlyElement.describe(array, f"e{k}", val_types=types))
        want.append(columns)
    lists = any(isinstance(v, list) for columns in want for _, v in columns.values())
    order = "<" if lists else data.draw(st.sampled_from(["<", ">"]))  # plyfile 1.1 writes numbers beside lists as "<"
    PlyData(elements, text=data.draw(st.booleans()), byte_order=order).write(str(tmp_path / "a.ply"))
    file = PlyFile(tmp_path / "a.ply")
    for k, columns in enumerate(want):
        got = file.read(f"e{k}")
        assert list(got) == list(columns)
        for name, (_, values) in columns.items():
            column = got[name]
            if isinstance(values, list):
                assert isinstance(column, Lists)
                assert column.lengths.tolist() == [len(v) for v in values]
                np.testing.assert_array_equal(column.values, np.concatenate(values))
            else:
                np.testing.assert_array_equal(column, values)


def packed_ply(n, bounds, seed=5):
    """An older SuperSplat's file and what it means, by the published bit fields."""
    r = np.random.default_rng(seed)
    chunks = -(-n // 256)
    chunk = np.zeros(chunks, [(b, "<f4") for b in bounds])
    for b in bounds:
        chunk[b] = r.uniform(-2, -1, chunks) if b.startswith("min") else r.uniform(1, 2, chunks)
    names = ("position", "rotation", "scale", "color")
    vertex = np.zeros(n, [(f"packed_{k}", "<u4") for k in names])
    for k in names:
        vertex[f"packed_{k}"] = r.integers(0, 1 << 32, n)
    return PlyElement.describe(chunk, "chunk"), vertex, chunk


@pytest.mark.parametrize("colored", [False, True])
def test_compressed_ply_with_and_without_bounds_of_colours(tmp_path, colored):
    bounds = [f"{m}_{s}{a}" for s in ("", "scale_") for m in ("min", "max") for a in "xyz"]
    bounds += [f"{m}_{a}" for m in ("min", "max") for a in "rgb"] if colored else []
    element, vertex, chunk = packed_ply(300, bounds)
    g = load_gaussians(written(tmp_path / "a.compressed.ply", vertex, before=[element]))
    assert len(g) == 300
    for i in (0, 255, 256, 299):
        word, c = int(vertex["packed_color"][i]), chunk[i // 256]
        for j, channel in enumerate("rgb"):
            share = (word >> (24 - 8 * j) & 255) / 255
            low, high = (c[f"min_{channel}"], c[f"max_{channel}"]) if colored else (0, 1)
            assert float(g.rgb[i, j]) == pytest.approx(low + share * (high - low), abs=1e-5)
        assert float(g.opacities[i]) == pytest.approx((word & 255) / 255, abs=1e-5)
        word = int(vertex["packed_position"][i])
        y = c["min_y"] + (word >> 11 & 1023) / 1023 * (c["max_y"] - c["min_y"])
        assert float(g.means[i, 1]) == pytest.approx(-y, abs=1e-5)


def test_compressed_ply_that_lacks_chunks_is_refused(tmp_path):
    bounds = [f"{m}_{s}{a}" for s in ("", "scale_") for m in ("min", "max") for a in "xyz"]
    element, vertex, _ = packed_ply(200, bounds)
    with pytest.raises(InputError, match="bounds for 256 of 300 Gaussians"):
        load_gaussians(written(tmp_path / "a.ply", np.resize(vertex, 300), before=[element]))
    with pytest.raises(InputError, match="without min_x, "):
        load_gaussians(written(tmp_path / "a.ply", vertex))


def test_places_of_a_map_lose_nothing(tmp_path, caplog):
    """UTM: 4,600 km north of the equator float32 has steps of half a metre."""
    rows = np.zeros(200, [(n, "<f8") for n in SPLAT])
    for n in SPLAT:
        rows[n] = table(200)[n]
    centre = np.array([432_100.25, 4_600_000.5, 312.0])
    for i, a in enumerate("xyz"):
        rows[a] = rows[a] + centre[i]
    g = load_gaussians(written(tmp_path / "a.ply", rows))
    want = np.stack([table(200)[a] for a in "xyz"], -1).astype(float)
    got = g.means.double().numpy() * TURN
    np.testing.assert_allclose(got - got.mean(0), want - want.mean(0), atol=1e-5)
    assert np.abs(got).max() < 6
    assert "far from the origin, where float32 has steps of 0.5 units; moved by (-432,100, -4,600,00" in caplog.text


def test_places_that_a_file_has_lost_are_named(tmp_path, caplog):
    rows = table(200)
    rows["y"] += 4.6e6
    load_gaussians(written(tmp_path / "a.ply", rows))
    assert "stored in steps of 0.5 units" in caplog.text


def test_the_fixed_layout_has_248_bytes_a_gaussian(tmp_path):
    g = Gaussians.from_activated(
        torch.rand(20, 3), torch.eye(4)[:1].repeat(20, 1), torch.full((20, 3), 0.05), torch.full((20,), 0.8),
        torch.rand(20, 3),
    )  # fmt: skip
    save_gaussians(g, tmp_path / "a.ply")
    save_gaussians(g, tmp_path / "a.compact.ply")
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    standard = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{i}" for i in range(45)]
    standard += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [p.name for p in vertex.properties] == standard
    assert vertex.data.itemsize == 248
    small = PlyData.read(tmp_path / "a.compact.ply")["vertex"]
    assert [p.name for p in small.properties] == SPLAT
    np.testing.assert_allclose(small["f_dc_1"] * SH_C0 + 0.5, g.rgb[:, 1], rtol=1e-5)
    for name in ("a.ply", "a.compact.ply"):
        back = load_gaussians(tmp_path / name)
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(g.tensors(), back.tensors()))


def test_warnings_are_lines(tmp_path, caplog):
    """One line each, at the level that ComfyUI and the command line print."""
    rows = table()
    rows["x"][0] = np.nan
    load_gaussians(written(tmp_path / "a.ply", rows))
    assert all(r.levelno == logging.WARNING and "\n" not in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("word", ["nan", "-nan(ind)", "nan(0x8000)", "1.#QNAN0", "-1.#IND", "1.#INF00", "-inf"])
def test_words_for_no_number_cost_one_row(tmp_path, caplog, word):
    """As C's libraries write them, Microsoft's among them."""
    lines = [" ".join(str(float(v)) for v in row) for row in table().tolist()]
    lines[3] = f"{word} {lines[3].split(maxsplit=1)[1]}"
    head = "ply\nformat ascii 1.0\nelement vertex 50\n" + "".join(f"property float {name}\n" for name in SPLAT)
    (tmp_path / "a.ply").write_text(head + "end_header\n" + "\n".join(lines))
    assert len(load_gaussians(tmp_path / "a.ply")) == 49
    assert "1 of 50 Gaussians left out" in caplog.text
    (tmp_path / "a.ply").write_text(head + "end_header\n" + "\n".join(lines).replace(word, "nothing"))
    with pytest.raises(InputError, match="a word that is no number"):
        load_gaussians(tmp_path / "a.ply")


def test_lists_of_the_other_byte_order(tmp_path):
    head = "ply\nformat binary_big_endian 1.0\nelement face 3\n"
    head += "property ushort id\nproperty list short int of\nend_header\n"
    rows = [(258, (1, 70_000)), (3, ()), (4, (7, 8, -9))]
    body = b"".join(struct.pack(f">Hh{len(v)}i", i, len(v), *v) for i, v in rows)
    (tmp_path / "a.ply").write_bytes(head.encode() + body)
    got = PlyFile(tmp_path / "a.ply").read("face")
    assert got["id"].tolist() == [258, 3, 4]
    assert got["of"].lengths.tolist() == [2, 0, 3]
    assert got["of"].values.tolist() == [1, 70_000, 7, 8, -9]
    (tmp_path / "a.ply").write_bytes(head.encode() + body[:-1])
    with pytest.raises(BrokenPlyError, match="declares 3 of element face and holds 2"):
        PlyFile(tmp_path / "a.ply").read("face")
    (tmp_path / "a.ply").write_bytes(head.encode() + struct.pack(">Hh", 1, -3) + bytes(99))
    with pytest.raises(BrokenPlyError, match="holds 0"):
        PlyFile(tmp_path / "a.ply").read("face")
