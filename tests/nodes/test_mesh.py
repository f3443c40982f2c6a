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


@pytest.fixture(scope="module")
def node(ours):
    """The node as the executor calls it."""
    from comfy_api.internal import make_locked_method_func
    from comfy_api.latest import io as comfy

    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    (node,) = [n for n in found if n.GET_SCHEMA().node_id == "DreamerXLMesh"]

    def call(splat, **inputs):
        clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {comfy.Hidden.unique_id: "1"}})
        with torch.inference_mode():
            return make_locked_method_func(node, "execute", clone)(splat=splat, **inputs)

    return call


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
