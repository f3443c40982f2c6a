"""glTF as its standard says: values of points whose truth is known, and refusals by name."""

import io
import json
import math
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from gltf_files import HALVES, INDEX, QUAD, UV, Glb
from PIL import Image

from dreamer_core.errors import InputError
from dreamer_core.initializers.mesh import to_display
from dreamer_core.initializers.model_files import read_points

RED, BLUE = (1, 0, 0), (0, 0, 1)


def points(path, count=2000):
    cloud = read_points(path, count, torch.Generator().manual_seed(0), "--init")
    return cloud.points.numpy(), None if cloud.rgb is None else cloud.rgb.numpy()


def textured(g, uv=UV, info=None, pixels=HALVES, material=None, name="TEXCOORD_0", texture=None, **attributes):
    index = g.picture(pixels, **(texture or {}))
    pbr = {"baseColorTexture": {"index": index, **(info or {})}}
    coordinates = {name: g.accessor(uv)} if not isinstance(uv, int) else {name: uv}
    return g.quad(material={"pbrMetallicRoughness": pbr, **(material or {})}, **coordinates, **attributes)


def error(path, want):
    """Mean error of colours against a function of x and y, away from edges between colours."""
    where, rgb = points(path, 3000)
    inside = (np.abs((where[:, :2] * 2) % 1 - 0.5) < 0.45).all(1)
    expected = np.array([want(x, y) for x, y, _ in where[inside]])
    return np.abs(rgb[inside] - expected).mean()


QUARTERS = np.zeros((64, 64, 3), np.uint8)  # in the picture: red and green above, blue and white below
QUARTERS[:32, :32, 0] = QUARTERS[:32, 32:, 1] = QUARTERS[32:, :32, 2] = 255
QUARTERS[32:, 32:] = 255


@pytest.mark.parametrize(
    ("transform", "want"),
    [
        ({"offset": [0.5, 0], "scale": [0.5, 0.5]}, lambda x, y: (0, 1, 0)),
        ({"offset": [0, 0.5], "scale": [0.5, 0.5]}, lambda x, y: BLUE),
        # The standard's example: the lower left quadrant of the picture.
        ({"offset": [0, 1], "rotation": math.pi / 2, "scale": [0.5, 0.5]}, lambda x, y: BLUE),
        ({"offset": [0, 1], "scale": [1, -1]},
         lambda x, y: (BLUE if x < 0.5 else (1, 1, 1)) if y > 0.5 else (RED if x < 0.5 else (0, 1, 0))),
        ({"offset": [0, 1], "rotation": math.pi / 2},
         lambda x, y: (BLUE if y > 0.5 else (1, 1, 1)) if x < 0.5 and y > 0.5 else None),
    ],
)  # fmt: skip
def test_texture_transforms(tmp_path, transform, want):
    g = Glb(extensionsUsed=["KHR_texture_transform"])
    textured(g, info={"extensions": {"KHR_texture_transform": transform}}, pixels=QUARTERS)
    where, rgb = points(g.save(tmp_path / "a.glb"))
    checked = 0
    for (x, y, _), color in zip(where, rgb):
        expected = want(x, y) if min(abs(x - 0.5), abs(y - 0.5), x, y, 1 - x, 1 - y) > 0.03 else None
        if expected is not None:
            assert np.allclose(color, expected, atol=0.01), (x, y)
            checked += 1
    assert checked > 300


def half(x, y):
    return RED if x < 0.5 else BLUE


@pytest.mark.parametrize("by", ["texCoord", "extension"])
def test_the_set_of_coordinates_that_is_named(tmp_path, by):
    g = Glb()
    flat = g.accessor(UV * 0.1 + np.float32(0.1))
    info = {"texCoord": 1} if by == "texCoord" else {"extensions": {"KHR_texture_transform": {"texCoord": 1}}}
    textured(g, info=info, name="TEXCOORD_1", TEXCOORD_0=flat)
    assert error(g.save(tmp_path / "a.glb"), half) < 1e-6


@pytest.mark.parametrize("kind", ["u1", "u2", "i1", "i2"])
def test_normalised_coordinates(tmp_path, kind):
    g = Glb()
    textured(g, uv=g.accessor(np.round(UV * np.iinfo(kind).max).astype(kind), normalized=True))
    assert error(g.save(tmp_path / "a.glb"), half) < 1e-6


@pytest.mark.parametrize(
    ("kind", "normalized"), [("i1", True), ("u1", True), ("i2", True), ("u2", False), ("i2", False)]
)
def test_quantised_places(tmp_path, kind, normalized):
    """KHR_mesh_quantization: integers that a node's transform brings to size."""
    full = np.iinfo(kind).max
    g = Glb(extensionsRequired=["KHR_mesh_quantization"], extensionsUsed=["KHR_mesh_quantization"])
    g.quad()
    places = g.accessor(np.round(QUAD * full).astype(kind), normalized=normalized)
    g.tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = places
    size = 3.0 if normalized else 3.0 / full
    g.tree["nodes"][0] |= {"scale": [size] * 3, "translation": [0, 0, 7]}
    where, _ = points(g.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(where.mean(0), [1.5, 1.5, 7], atol=0.05)
    np.testing.assert_allclose(where.max(0), [3, 3, 7], atol=0.05)


@pytest.mark.parametrize("base", [True, False])
def test_sparse_places(tmp_path, base):
    g = Glb()
    primitive = g.quad(QUAD if base else QUAD * 0)
    accessor = g.tree["accessors"][primitive["attributes"]["POSITION"]]
    if not base:
        del accessor["bufferView"]
    rows = np.array([1, 2, 3] if not base else [2], "u2")
    values = QUAD[rows] * (2 if base else 1)
    accessor["sparse"] = {
        "count": len(rows), "indices": {"bufferView": g.view(rows.tobytes()), "componentType": 5123},
        "values": {"bufferView": g.view(values.astype("f4").tobytes())},
    }  # fmt: skip
    where, _ = points(g.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(where.max(0), [2, 2, 0] if base else [1, 1, 0], atol=0.1)
    accessor["sparse"]["indices"]["bufferView"] = g.view(np.array([9, 9, 9], "u2").tobytes())
    with pytest.raises(InputError, match="sparse accessor names row 9 of 4"):
        points(g.save(tmp_path / "b.glb"))


def test_interleaved_attributes(tmp_path):
    g = Glb()
    rows = np.concatenate([QUAD, UV], axis=1).astype("f4")
    view = g.view(rows.tobytes(), byteStride=20)
    textured(g)
    attributes = g.tree["meshes"][0]["primitives"][0]["attributes"]
    for name, at, kind in (("POSITION", 0, "VEC3"), ("TEXCOORD_0", 12, "VEC2")):
        attributes[name] = len(g.tree["accessors"])
        g.tree["accessors"].append(
            {"bufferView": view, "byteOffset": at, "componentType": 5126, "count": 4, "type": kind}
        )
    assert error(g.save(tmp_path / "a.glb"), half) < 1e-6


def draco(tmp_path, name="a.glb"):
    coder = pytest.importorskip("DracoPy")
    g = Glb(extensionsUsed=["KHR_draco_mesh_compression"], extensionsRequired=["KHR_draco_mesh_compression"])
    textured(g)
    data = coder.encode(QUAD, INDEX.reshape(-1, 3).astype("u4"), quantization_bits=14, tex_coord=UV.astype(float),
                        preserve_order=True)  # fmt: skip
    names = {3: "POSITION", 2: "TEXCOORD_0"}
    ids = {names[np.shape(a["data"])[1]]: a["unique_id"] for a in coder.decode(data).attributes}
    primitive = g.tree["meshes"][0]["primitives"][0]
    for index in (*primitive["attributes"].values(), primitive["indices"]):
        del g.tree["accessors"][index]["bufferView"]
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": g.view(data), "attributes": ids}}
    return g, g.save(tmp_path / name)


def test_draco(tmp_path, monkeypatch):
    g, path = draco(tmp_path)
    assert error(path, half) < 1e-3
    where, _ = points(path)
    np.testing.assert_allclose(where.max(0), [1, 1, 0], atol=0.05)
    view = g.tree["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]["bufferView"]
    start = g.tree["bufferViews"][view]["byteOffset"]
    g.blob = g.blob[: start + 11] + bytes(len(g.blob) - start - 11)
    with pytest.raises(InputError, match="KHR_draco_mesh_compression"):
        points(g.save(tmp_path / "b.glb"))
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(InputError, match=r"--init: expected the package DracoPy, .*KHR_draco.*pip install DracoPy"):
        points(path)


def test_a_part_that_cannot_be_decoded_takes_the_others_with_it(tmp_path):
    g, _ = draco(tmp_path)
    g.tree["meshes"].append({"primitives": [{"attributes": {"POSITION": g.accessor(QUAD)}}]})
    g.tree["nodes"].append({"mesh": 1})
    g.tree["scenes"][0]["nodes"].append(1)
    del g.tree["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]["attributes"]["POSITION"]
    primitive = g.tree["meshes"][0]["primitives"][0]
    primitive["extensions"] = {"ACME_packed": {}}
    with pytest.raises(InputError, match=r"left to an extension, got .*a\.glb with ACME_packed"):
        points(g.save(tmp_path / "a.glb"))


def meshopt_quad(tmp_path, extension="EXT_meshopt_compression"):
    coder = pytest.importorskip("meshopt")
    g = Glb(extensionsUsed=[extension], extensionsRequired=[extension])
    textured(g)
    g.tree["buffers"] = [None, {"byteLength": 200, "extensions": {extension: {"fallback": True}}}]

    def packed(rows, mode, kind="NONE"):
        rows = np.ascontiguousarray(rows)
        data = coder.encode_gltf_buffer(rows, mode)
        stride = rows.nbytes // len(rows)
        g.blob += bytes(-len(g.blob) % 4)
        entry = {"buffer": 0, "byteOffset": len(g.blob), "byteLength": len(data), "byteStride": stride, "mode": mode,
                 "count": len(rows), "filter": kind}  # fmt: skip
        g.blob += data
        view = {"buffer": 1, "byteLength": rows.nbytes, "extensions": {extension: entry}}
        if mode == "ATTRIBUTES":
            view["byteStride"] = stride
        g.tree["bufferViews"].append(view)
        return len(g.tree["bufferViews"]) - 1

    primitive = g.tree["meshes"][0]["primitives"][0]
    accessors = g.tree["accessors"]
    accessors[primitive["attributes"]["POSITION"]]["bufferView"] = packed(
        coder.encode_filter_exp(QUAD, 15), "ATTRIBUTES", "EXPONENTIAL"
    )
    accessors[primitive["attributes"]["TEXCOORD_0"]]["bufferView"] = packed(UV, "ATTRIBUTES")
    accessors[primitive["indices"]]["bufferView"] = packed(INDEX, "TRIANGLES")
    return g, primitive


@pytest.mark.parametrize("extension", ["EXT_meshopt_compression", "KHR_meshopt_compression"])
def test_meshopt(tmp_path, monkeypatch, extension):
    g, primitive = meshopt_quad(tmp_path, extension)
    path = g.save(tmp_path / "a.glb")
    assert error(path, half) < 1e-3
    view = g.tree["accessors"][primitive["attributes"]["TEXCOORD_0"]]["bufferView"]
    g.tree["bufferViews"][view]["extensions"][extension]["byteLength"] -= 9
    with pytest.raises(InputError, match="meshopt_compression cannot be decoded"):
        points(g.save(tmp_path / "b.glb"))
    monkeypatch.setitem(sys.modules, "meshopt", None)
    with pytest.raises(InputError, match=r"the package meshopt, .*pip install meshopt"):
        points(path)


def test_extensions(tmp_path, caplog):
    g = Glb(extensionsUsed=["ACME_shine", "KHR_materials_ior"], extensionsRequired=["ACME_shine"])
    g.quad()
    with pytest.raises(InputError, match=r"extensions that are not known here, got .*which requires ACME_shine"):
        points(g.save(tmp_path / "a.glb"))
    del g.tree["extensionsRequired"]
    points(g.save(tmp_path / "a.glb"))
    assert "extensions that are not used: ACME_shine" in caplog.text
    assert "ior" not in caplog.text


def test_textures_that_nothing_decodes(tmp_path, caplog):
    g = Glb(extensionsUsed=["KHR_texture_basisu"])
    textured(g, texture={"extensions": {"KHR_texture_basisu": {"source": 0}}})
    assert error(g.save(tmp_path / "a.glb"), half) < 1e-6  # the PNG beside it
    del g.tree["textures"][0]["source"]
    with pytest.raises(InputError, match="whose textures are KTX2"):
        points(g.save(tmp_path / "a.glb"))
    g = Glb()
    textured(g)
    view = g.tree["bufferViews"][g.tree["images"][0]["bufferView"]]
    g.blob = g.blob[: view["byteOffset"]] + b"no picture" + g.blob[view["byteOffset"] + 10 :]
    points(g.save(tmp_path / "b.glb"))
    assert "its texture 'image 0' cannot be read" in caplog.text


def test_webp_and_sixteen_bits_of_grey(tmp_path):
    g = Glb(extensionsUsed=["EXT_texture_webp"])
    textured(g)
    g.picture(HALVES[:, ::-1].copy(), "WEBP")
    g.tree["textures"] = [{"source": 0, "extensions": {"EXT_texture_webp": {"source": 1}}}]
    assert error(g.save(tmp_path / "a.glb"), lambda x, y: BLUE if x < 0.5 else RED) < 1e-6
    g = Glb()
    textured(g, pixels=np.full((8, 8), 128 * 257, np.uint16))
    np.testing.assert_allclose(points(g.save(tmp_path / "b.glb"))[1], 128 / 255, atol=1e-3)


MODES = {10497: lambda u: u % 1, 33071: lambda u: min(max(u, 0), 1 - 1e-9), 33648: lambda u: 1 - abs(u % 2 - 1)}


@pytest.mark.parametrize("across", MODES)
@pytest.mark.parametrize("down", MODES)
def test_wrap_modes(tmp_path, across, down):
    g = Glb(samplers=[{"wrapS": across, "wrapT": down}])
    textured(g, uv=UV * 3 - np.float32(1), pixels=QUARTERS, texture={"sampler": 0})
    where, rgb = points(g.save(tmp_path / "a.glb"))
    u, v = where[:, 0] * 3 - 1, (1 - where[:, 1]) * 3 - 1
    for x, y, color in zip(u, v, rgb):
        if min(abs(x * 2 - round(x * 2)), abs(y * 2 - round(y * 2))) > 0.05:
            left, top = MODES[across](x) < 0.5, MODES[down](y) < 0.5
            want = (RED if left else (0, 1, 0)) if top else (BLUE if left else (1, 1, 1))
            assert np.allclose(color, want), (x, y)


@pytest.mark.parametrize(("kind", "width"), [("f4", 3), ("f4", 4), ("u1", 4), ("u2", 3), ("u2", 4)])
def test_factor_texture_and_vertices_are_multiplied(tmp_path, kind, width):
    """Linear factors, a texture in display values: the standard's product."""
    g = Glb()
    vertex = np.tile(np.array([0.5, 0.25, 1.0, 1.0])[:width], (4, 1))
    colors = vertex.astype("f4") if kind == "f4" else np.round(vertex * np.iinfo(kind).max).astype(kind)
    textured(g, pixels=np.full((4, 4, 3), 188, np.uint8), COLOR_0=g.accessor(colors, normalized=kind != "f4"))
    g.tree["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [1.0, 0.5, 0.5, 1.0]
    linear = ((188 / 255 + 0.055) / 1.055) ** 2.4
    want = to_display(np.array([0.5, 0.125, 0.5]) * linear)
    np.testing.assert_allclose(points(g.save(tmp_path / "a.glb"))[1], np.tile(want, (2000, 1)), atol=2e-3)


def holes(alpha):
    return np.concatenate([HALVES, np.full((64, 64, 1), 255, np.uint8) * alpha], axis=2).astype(np.uint8)


def test_a_mask_makes_holes(tmp_path):
    alpha = np.ones((64, 64, 1))
    alpha[:, :32] = 0.3
    for material, share in (
        ({"alphaMode": "MASK"}, 0.0),
        ({"alphaMode": "MASK", "alphaCutoff": 0.2}, 0.5),
        ({}, 0.5),
        ({"alphaMode": "BLEND"}, 0.3 / 1.3),
    ):
        g = Glb()
        textured(g, pixels=holes(alpha), material=material)
        where, _ = points(g.save(tmp_path / "a.glb"), 6000)
        assert len(where) == 6000
        assert (where[:, 0] < 0.5).mean() == pytest.approx(share, abs=0.02)


def test_transparency_by_factor_and_vertices(tmp_path):
    g = Glb()
    colors = np.ones((4, 4), "f4")
    colors[[0, 3], 3] = 0  # the left edge
    g.quad(material={"alphaMode": "MASK"}, COLOR_0=g.accessor(colors))
    where, _ = points(g.save(tmp_path / "a.glb"))
    assert where[:, 0].min() == pytest.approx(0.5, abs=0.01)
    g.tree["materials"][0] |= {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.25]}}
    with pytest.raises(InputError, match="all of which is transparent"):
        read_points(g.save(tmp_path / "a.glb"), 100, torch.Generator(), "--init")


def test_points_go_where_there_is_something_to_see(tmp_path):
    """Beside a half-invisible square an opaque one gets two thirds of the points."""
    alpha = np.ones((64, 64, 1))
    alpha[:, :32] = 0
    g = Glb()
    textured(g, pixels=holes(alpha), material={"alphaMode": "MASK"})
    g.tree["meshes"].append({"primitives": [{"attributes": {"POSITION": g.accessor(QUAD)}, "indices": 2}]})
    g.tree["meshes"][1]["primitives"][0]["indices"] = g.tree["meshes"][0]["primitives"][0]["indices"]
    g.tree["nodes"].append({"mesh": 1, "translation": [5, 0, 0]})
    g.tree["scenes"][0]["nodes"] = [0, 1]
    where, _ = points(g.save(tmp_path / "a.glb"), 3000)
    assert (where[:, 0] > 4).mean() == pytest.approx(2 / 3, abs=0.02)


def test_specular_glossiness(tmp_path):
    g = Glb(extensionsUsed=["KHR_materials_pbrSpecularGlossiness"])
    textured(g)
    entry = g.tree["materials"][0].pop("pbrMetallicRoughness")
    glossy = {"diffuseTexture": entry["baseColorTexture"], "diffuseFactor": [1, 1, 0, 1]}
    g.tree["materials"][0]["extensions"] = {"KHR_materials_pbrSpecularGlossiness": glossy}
    assert error(g.save(tmp_path / "a.glb"), lambda x, y: RED if x < 0.5 else (0, 0, 0)) < 1e-6


@pytest.mark.parametrize(
    ("mode", "order"), [(4, [0, 1, 2, 0, 2, 3]), (5, [0, 1, 3, 2]), (6, [0, 1, 2, 3]), (5, None), (4, None)]
)
def test_strips_fans_and_no_indices(tmp_path, mode, order):
    g = Glb()
    places = QUAD if order else QUAD[[0, 1, 3, 2]] if mode == 5 else QUAD[INDEX]
    g.quad(places, None if order is None else np.array(order, "u1"))["mode"] = mode
    where, _ = points(g.save(tmp_path / "a.glb"), 4000)
    quarters = [((where[:, 0] > 0.5) == right) & ((where[:, 1] > 0.5) == up) for right in (0, 1) for up in (0, 1)]
    assert [q.mean() for q in quarters] == pytest.approx([0.25] * 4, abs=0.02)


def test_points_and_lines(tmp_path, caplog):
    g = Glb()
    colors = np.array([[0.5] * 3] * 4, "f4")
    g.quad(COLOR_0=g.accessor(colors), index=None)["mode"] = 0
    where, rgb = points(g.save(tmp_path / "a.glb"))
    np.testing.assert_array_equal(where, QUAD)
    np.testing.assert_allclose(rgb, to_display(colors.astype(float)), atol=1e-6)
    g.tree["meshes"][0]["primitives"].append({"attributes": {"POSITION": 0}, "mode": 1})
    points(g.save(tmp_path / "a.glb"))
    assert "lines are left out, in 1 parts" in caplog.text


def test_morph_targets_at_their_weights(tmp_path):
    g = Glb()
    primitive = g.quad()
    primitive["targets"] = [{"POSITION": g.accessor(QUAD * 2)}, {"POSITION": g.accessor(QUAD * 100)}]
    g.tree["meshes"][0]["weights"] = [0.5, 0]
    np.testing.assert_allclose(points(g.save(tmp_path / "a.glb"))[0].max(0), [2, 2, 0], atol=0.1)
    g.tree["nodes"][0]["weights"] = [1, 0]
    np.testing.assert_allclose(points(g.save(tmp_path / "a.glb"))[0].max(0), [3, 3, 0], atol=0.1)


def test_a_skin_at_rest(tmp_path):
    """As exporters of armatures in centimetres write it: the joints place the mesh, its own node does not."""
    g = Glb()
    inverse = np.eye(4, dtype="f4")
    inverse[0, 3] = -100  # the joint stood at x = 100 when it was bound
    g.quad(
        JOINTS_0=g.accessor(np.zeros((4, 4), "u1")), WEIGHTS_0=g.accessor(np.array([[1, 0, 0, 0]] * 4, "f4"))
    )  # fmt: skip
    g.tree["skins"] = [{"joints": [2], "inverseBindMatrices": g.accessor(inverse.T.reshape(1, 16))}]
    g.tree["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [999, 0, 0]},
        {"scale": [0.01] * 3, "children": [2]},
        {"translation": [300, 0, 0]},
    ]
    g.tree["scenes"][0]["nodes"] = [0, 1]
    where, _ = points(g.save(tmp_path / "a.glb"))
    np.testing.assert_allclose([where[:, 0].min(), where[:, 0].max()], [2, 2.01], atol=1e-3)


def test_instances(tmp_path):
    g = Glb(extensionsUsed=["EXT_mesh_gpu_instancing"], extensionsRequired=["EXT_mesh_gpu_instancing"])
    g.quad()
    moves = {"TRANSLATION": g.accessor(np.array([[0, 0, 0], [5, 0, 0], [10, 0, 0]], "f4")),
             "SCALE": g.accessor(np.array([[1, 1, 1], [1, 1, 1], [2, 2, 2]], "f4"))}  # fmt: skip
    g.tree["nodes"][0] |= {"extensions": {"EXT_mesh_gpu_instancing": {"attributes": moves}}, "scale": [2, 2, 2]}
    where, _ = points(g.save(tmp_path / "a.glb"), 6000)
    assert [int(((where[:, 0] >= x) & (where[:, 0] < x + 9)).sum()) for x in (0, 10, 20)] == [1000, 1000, 4000]


def test_the_tree_of_nodes(tmp_path):
    g = Glb()
    g.quad()
    g.tree["cameras"] = [{"type": "perspective", "perspective": {"yfov": 1, "znear": 0.1}}]
    half = math.sqrt(0.5)
    g.tree["nodes"] = [
        {"camera": 0, "children": [1], "translation": [1, 0, 0]},
        {"rotation": [0, 0, half, half], "children": [2]},
        {"matrix": [3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 3, 0, 1, 0, 0, 1], "mesh": 0},
        {"mesh": 0, "extensions": {"KHR_node_visibility": {"visible": False}}, "children": [4]},
        {"mesh": 0},
    ]
    g.tree["scenes"] = [{"nodes": [0, 3]}, {"nodes": [4]}]
    where, _ = points(g.save(tmp_path / "a.glb"))
    np.testing.assert_allclose([where.min(0), where.max(0)], [[-2, 1, 0], [1, 4, 0]], atol=0.1)
    g.tree["scene"] = 1
    np.testing.assert_allclose(points(g.save(tmp_path / "a.glb"))[0].max(0), [1, 1, 0], atol=0.05)
    g.tree["nodes"][4]["children"] = [4]
    with pytest.raises(InputError, match="its node 4 has two parents"):
        points(g.save(tmp_path / "a.glb"))
    del g.tree["scenes"], g.tree["scene"], g.tree["nodes"][4]["children"], g.tree["nodes"][3]
    del g.tree["nodes"][1:3]
    g.tree["nodes"][0] = {"mesh": 0, "translation": [0, 4, 0]}
    np.testing.assert_allclose(points(g.save(tmp_path / "a.glb"))[0].max(0), [1, 5, 0], atol=0.05)


def test_large_coordinates_stay_exact(tmp_path):
    """A node in the middle of a UTM zone: the places are summed in doubles."""
    g = Glb()
    g.quad()
    g.tree["nodes"][0]["translation"] = [432100.125, 4600000.0625, 0]
    where, _ = points(g.save(tmp_path / "a.glb"), 20_000)
    spread = where[:, :2] - [432100.125, 4600000.0625]
    assert len(np.unique(spread[:, 1])) > 19_000
    np.testing.assert_allclose([spread.min(0), spread.max(0)], [[0, 0], [1, 1]], atol=0.01)


def gltf(folder, buffer, image, tree=None):
    view = lambda start, data: {"buffer": 0, "byteOffset": start, "byteLength": data.nbytes}
    parts = ((0, QUAD, 5126, "VEC3"), (48, UV, 5126, "VEC2"), (80, INDEX, 5123, "SCALAR"))
    content = {
        "asset": {"version": "2.0"}, "buffers": [{"uri": buffer, "byteLength": 92}],
        "bufferViews": [view(start, data) for start, data, _, _ in parts],
        "accessors": [{"bufferView": i, "componentType": t, "count": len(d), "type": k}
                      for i, (_, d, t, k) in enumerate(parts)],
        "images": [{"uri": image}], "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "nodes": [{"mesh": 0}], "scenes": [{"nodes": [0]}], **(tree or {}),
    }  # fmt: skip
    path = folder / "a.gltf"
    path.write_text(json.dumps(content))
    return path


BODY = QUAD.tobytes() + UV.tobytes() + INDEX.tobytes()


@pytest.mark.parametrize(
    ("buffer", "image", "files"),
    [
        ("my%20mesh.bin", "my%20texture%20%C3%BC.png", ("my mesh.bin", "my texture ü.png")),
        ("my mesh.bin", "100%.png", ("my mesh.bin", "100%.png")),
        ("sub/a.bin", "sub\\t.png", ("sub/a.bin", "sub/t.png")),
        ("a%2520.bin", "t%23.png", ("a%20.bin", "t#.png")),
    ],
)
def test_percent_encoded_names(tmp_path, buffer, image, files):
    from dreamer_core.initializers.references import references

    (tmp_path / "sub").mkdir()
    (tmp_path / files[0]).write_bytes(BODY)
    Image.fromarray(HALVES).save(tmp_path / files[1])
    path = gltf(tmp_path, buffer, image)
    assert error(path, half) < 1e-6
    assert references(path) == [(tmp_path / f).resolve() for f in files]


def test_data_uris_and_missing_files(tmp_path, caplog):
    import base64

    file = io.BytesIO()
    Image.fromarray(HALVES).save(file, "PNG")
    data = "data:application/octet-stream;base64," + base64.b64encode(BODY).decode()
    picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    assert error(gltf(tmp_path, data, picture), half) < 1e-6
    kind, _, text = picture.partition(",")
    web = f"{kind},{text.translate(str.maketrans('+/', '-_')).rstrip('=')}"
    assert error(gltf(tmp_path, data, web), half) < 1e-6
    with pytest.raises(InputError, match="data that is no base64"):
        points(gltf(tmp_path, data.replace("base64,", "base64,*"), picture))
    where, rgb = points(gltf(tmp_path, data, "gone.png"))
    assert len(where) == 2000
    np.testing.assert_array_equal(rgb, 1)  # the factor alone
    assert "its texture 'gone.png' is not there; read without" in caplog.text
    with pytest.raises(InputError, match=r"its buffer 'gone\.bin' is not there"):
        points(gltf(tmp_path, "gone.bin", picture))
    (tmp_path / "models").mkdir()
    (tmp_path / "secret.bin").write_bytes(BODY)
    with pytest.raises(InputError, match="is not there"):
        points(gltf(tmp_path / "models", "../secret.bin", picture))
    with pytest.raises(InputError, match="is not there"):
        points(gltf(tmp_path / "models", "%2e%2e/secret.bin", picture))


def test_sizes_that_are_declared_take_nothing(tmp_path):
    def peak(path, match):
        tracemalloc.start()
        with pytest.raises(InputError, match=match):
            points(path)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 8 << 20

    g = Glb()
    g.quad()
    accessor = g.tree["accessors"][0]
    accessor["count"] = 4_000_000_000_000
    peak(g.save(tmp_path / "a.glb"), "a file that fits the memory")
    accessor["count"] = 5
    peak(g.save(tmp_path / "a.glb"), "wants 5 rows of 12 bytes from byte 0 of a view of 48")
    accessor["count"] = 4
    g.tree["bufferViews"][0]["byteLength"] = 10_000
    peak(g.save(tmp_path / "a.glb"), "a view of 10,000 bytes")
    path = g.save(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes()[:-7])
    peak(path, "it has .* bytes")


def test_a_picture_beyond_the_memory(tmp_path, monkeypatch):
    from dreamer_core.formats import bounds

    g = Glb()
    textured(g, pixels=np.zeros((512, 512, 3), np.uint8))
    path = g.save(tmp_path / "a.glb")
    plain, asked = bounds.require_memory, []

    def ask(needed, *rest):
        asked.append(needed)
        plain(needed, *rest)

    monkeypatch.setattr("dreamer_core.initializers.pictures.require_memory", ask)
    points(path)
    assert asked == [12 * 512 * 512]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["asset"].update(version="1.0"), "it is glTF 1.0"),
        (lambda t: t["asset"].update(minVersion="2.1"), "it is glTF 2.1"),
        (
            lambda t: t["nodes"][0].update(translation=[0, float("nan"), 0]),
            "node 0 has a transform with NaN or inf",
        ),
        (lambda t: t["accessors"][0].update(componentType=77), "it lacks 77"),
        (lambda t: t["accessors"][0].update(count=-4), "an accessor of -4 rows"),
        (lambda t: t["accessors"][0].update(bufferView=9), r"names bufferViews\[9\], of 2"),
        (lambda t: t["nodes"][0].update(mesh=3), r"names meshes\[3\], of 1"),
        (lambda t: t.update(nodes=[[]]), r"names nodes\[0\]"),
        (lambda t: t.update(scenes=[{"nodes": [5]}]), r"names nodes\[5\]"),
        (lambda t: t.update(meshes=[{}]), "it lacks 'primitives'"),
        (lambda t: t.update(accessors="x"), "its accessors are no list"),
        (lambda t: t["nodes"][0].update(scale=[1, 2]), "cannot be read"),
    ],
)
def test_broken_trees_are_one_line(tmp_path, change, message):
    g = Glb()
    g.quad()
    change(g.tree)
    with pytest.raises(InputError, match=message) as caught:
        points(g.save(tmp_path / "a.glb"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--init: expected ")


def test_containers(tmp_path):
    g = Glb()
    g.quad()
    data = g.save(tmp_path / "a.glb").read_bytes()
    extra = data + struct.pack("<I4s", 4, b"XTRA") + b"more"
    (tmp_path / "a.glb").write_bytes(extra[:8] + struct.pack("<I", len(extra)) + extra[12:])
    assert len(points(tmp_path / "a.glb")[0]) == 2000
    for content, message in (
        (data[:4] + struct.pack("<I", 3) + data[8:], "version 3"),
        (b"glTF" + struct.pack("<II", 2, 12), "no JSON"),
        (b"{" * 100_000, "no JSON that can be read"),
        (b"[1]", "no object"),
    ):
        (tmp_path / "b.glb").write_bytes(content)
        with pytest.raises(InputError, match=message):
            points(tmp_path / "b.glb")
