"""The Mesh node: what ComfyUI's own writers make of its result, and what it refuses."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
import torch
import trimesh

for module in ("skimage", "manifold3d", "xatlas", "trimesh"):
    pytest.importorskip(module, reason="the extra `mesh` is not installed")

FAST = {"triangles": 600, "texture": 64, "cells": 32, "views": 8, "resolution": 96}


def run(node, **inputs):
    """A node as the executor calls it."""
    from comfy_api.internal import make_locked_method_func
    from comfy_api.latest import io as comfy

    clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {comfy.Hidden.unique_id: None}})
    with torch.inference_mode():
        return make_locked_method_func(node, "execute", clone)(**inputs)


@pytest.fixture(scope="module")
def named(ours):
    """Our nodes by their ids."""
    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    return {node.GET_SCHEMA().node_id: node for node in found}


@pytest.fixture(scope="module")
def node(named):
    return lambda splat, **inputs: run(named["DreamerXLMesh"], splat=splat, **inputs)


@pytest.fixture(scope="module")
def box(ours):
    """A box of Gaussians, twice as high as wide, red above and blue below, in ComfyUI's SPLAT."""
    at = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (10, 20, 10)], indexing="ij"), -1).reshape(
        -1, 3
    )
    rgb = torch.where(at[:, 1:2] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    gaussians = ours("dreamer_core.gaussians").Gaussians.from_activated(
        at * torch.tensor([0.3, 0.6, 0.3]),
        torch.tensor([[1.0, 0, 0, 0]]).expand(len(at), 4),
        torch.full((len(at), 3), 0.03),
        torch.full((len(at),), 0.95),
        rgb,
    )
    return ours("nodes.host.splat").to_splat(gaussians)


def test_comfyui_writes_the_same_glb(node, box, host):
    import comfy_extras.nodes_save_3d as core

    made = node(box, size=0.5, **FAST)
    theirs = core.mesh_item_to_glb_bytes(made.args[0], 0)
    ours_too = made.args[1].get_data().getvalue()
    read = [trimesh.load(io.BytesIO(b), file_type="glb", force="mesh", process=False) for b in (theirs, ours_too)]
    assert len(read[0].faces) == len(read[1].faces) <= 600
    assert np.allclose(read[0].vertices, read[1].vertices, atol=1e-6)
    assert np.allclose(read[0].visual.uv, read[1].visual.uv, atol=1e-6)
    pictures = [np.asarray(r.visual.material.baseColorTexture.convert("RGB")).astype(int) for r in read]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    for one in read:
        assert one.visual.material.roughnessFactor == pytest.approx(0.9)
        assert one.visual.material.metallicFactor == 0
        # Upright, on the ground, half a metre high.
        assert one.vertices[:, 1].min() == pytest.approx(0, abs=1e-6)
        assert one.vertices[:, 1].max() == pytest.approx(0.5, rel=1e-4)
        colors = one.visual.to_color().vertex_colors[:, :3].astype(int)
        above = one.vertices[:, 1] > 0.3
        assert (colors[above, 0] > colors[above, 2]).all()


def test_what_it_cannot_do_is_said_by_name(node, box, ours):
    splat = ours("nodes.host.splat")
    with pytest.raises(ValueError, match="Dreamer XL Mesh: splat: expected one object, got a batch of 2"):
        node(splat.pack(splat.items(box) * 2), **FAST)
    with pytest.raises(ValueError, match=r"Dreamer XL Mesh: mesh\.views: expected a whole number from 8 to 512, got 2"):
        node(box, **{**FAST, "views": 2})


@pytest.fixture(scope="module")
def core(host):
    """ComfyUI's own mesh nodes: every one answers with its first output."""
    import comfy_extras.nodes_mesh_postprocess as nodes

    return lambda name, **inputs: run(getattr(nodes, name), **inputs).args[0]


PAINT = {"texture": 128, "views": 16, "resolution": 128}


def colour_along_y(mesh):
    """Mean colour of a MESH's own texture over the faces in the upper and in the lower third."""
    places, faces, uv = mesh.vertices[0], mesh.faces[0].long(), mesh.uvs[0]
    height, at = places[faces].mean(1)[:, 1], uv[faces].mean(1)
    side = mesh.texture.shape[1]
    x, y = (at * side).long().clamp(0, side - 1).unbind(-1)
    found = mesh.texture[0, y, x]
    third = (places[:, 1].max() - places[:, 1].min()) / 3
    return found[height > places[:, 1].max() - third].mean(0), found[height < places[:, 1].min() + third].mean(0)


def test_comfyuis_own_layout_is_painted_and_its_bakes_follow(node, named, core, box):
    dense = node(box, **{**FAST, "size": 0.0, "origin": "splat", "triangles": 0}).args[0]
    few = core("DecimateMesh", mesh=dense, target_face_count=300, placement_mode={"placement_mode": "midpoint"})
    laid = core("UnwrapMesh", mesh=few, segmenter="pec", resolution=128, padding=2, weld_distance=0.0)
    painted = run(named["DreamerXLBakeTexture"], mesh=laid, splat=box, **PAINT).args[0]
    # Triangles and UVs are ComfyUI's, to the bit; the colours are the splat's.
    assert torch.equal(painted.vertices, laid.vertices)
    assert torch.equal(painted.faces, laid.faces)
    assert torch.equal(painted.uvs, laid.uvs)
    above, below = colour_along_y(painted)
    assert above[0] > 0.7 > 0.3 > above[2]
    assert below[2] > 0.7 > 0.3 > below[0]
    bumps = core(
        "BakeNormalMapFromMesh",
        low_poly=painted,
        high_poly=dense,
        resolution=64,
        cage_distance=0.05,
        ignore_backfaces=True,
    )
    shade = core("BakeAmbientOcclusion", low_poly=painted, high_poly=dense, resolution=64, samples=8, max_distance=0.5,
                 strength=1.0, bias=0.01)  # fmt: skip
    # A box is flat and open: its normals look straight up from it, and nothing shades it.
    assert bumps[..., 2].median() > 0.95
    assert shade.median() > 0.9
    base = core("MeshTextureToImage", mesh=painted)
    done = core("ApplyTextureToMesh", mesh=painted, base_color=base, occlusion=shade, normal_map=bumps)
    import comfy_extras.nodes_save_3d as files

    read = trimesh.load(io.BytesIO(files.mesh_item_to_glb_bytes(done, 0)), file_type="glb", force="mesh", process=False)
    assert len(read.faces) <= 300
    material = read.visual.material
    assert None not in (material.baseColorTexture, material.normalTexture, material.occlusionTexture)


def test_a_mesh_without_uvs_is_laid_out_and_colours_that_would_multiply_go(node, named, core, box):
    dense = node(box, **{**FAST, "size": 0.0, "origin": "splat"}).args[0]
    bare = core("DecimateMesh", mesh=dense, target_face_count=300, placement_mode={"placement_mode": "midpoint"})
    bare.vertex_colors = torch.full((*bare.vertices.shape[:2], 3), 0.5)
    bare.material = {"base_color_factor": [0.1, 0.1, 0.1, 1.0], "metallic_factor": 0.25}
    painted = run(named["DreamerXLBakeTexture"], mesh=bare, splat=box, **PAINT).args[0]
    assert painted.vertex_colors is None
    assert painted.material == {"metallic_factor": 0.25}
    above, below = colour_along_y(painted)
    assert above[0] > 0.7 > 0.3 > above[2]
    assert below[2] > 0.7 > 0.3 > below[0]


def test_a_mesh_elsewhere_is_refused_with_what_to_do(node, named, box):
    moved = node(box, **{**FAST, "size": 0.4}).args[0]
    with pytest.raises(ValueError, match=r"Dreamer XL Bake Texture: mesh: expected a surface of this splat.*size 0"):
        run(named["DreamerXLBakeTexture"], mesh=moved, splat=box, **PAINT)
    tiled = node(box, **{**FAST, "size": 0.0, "origin": "splat"}).args[0]
    tiled.uvs = tiled.uvs * 3
    with pytest.raises(ValueError, match=r"mesh: expected UVs from 0 to 1.*got UVs from .* to [23]"):
        run(named["DreamerXLBakeTexture"], mesh=tiled, splat=box, **PAINT)
