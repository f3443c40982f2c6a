"""Every node's schema as ComfyUI's front end and executor will read it."""

from __future__ import annotations

import asyncio
import inspect

import pytest

NODES = {
    "DreamerXLLoader",
    "DreamerXLPrompt",
    "DreamerXLPromptFromConditioning",
    "DreamerXLInitialize",
    "DreamerXLCameras",
    "DreamerXLTSMGuidance",
    "DreamerXLGradientClip",
    "DreamerXLDensityControl",
    "DreamerXLRegularizers",
    "DreamerXLOptimize",
    "DreamerXLCleanup",
    "DreamerXLRender",
    "DreamerXLPreview",
    "DreamerXLExport",
}


@pytest.fixture(scope="module")
def classes(pack):
    extension = asyncio.run(pack.comfy_entrypoint())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def test_the_pack_offers_exactly_its_nodes(pack, classes):
    assert set(classes) == NODES
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS")


@pytest.mark.parametrize("node_id", sorted(NODES))
def test_schema(classes, node_id):
    from comfy_api.latest._io import DynamicCombo

    node = classes[node_id]
    schema = node.GET_SCHEMA()
    schema.validate()
    node.GET_NODE_INFO_V1()
    assert schema.category == "3d/dreamer xl"
    assert schema.display_name.startswith("Dreamer XL")
    assert schema.description
    assert schema.search_aliases
    # A choice's own inputs too; an optional input needs a default in Python, for the schema's is not applied.
    parameters = inspect.signature(node.execute).parameters
    for top in schema.inputs:
        inner = [i for o in top.options for i in o.inputs] if isinstance(top, DynamicCombo.Input) else []
        for one in [top, *inner]:
            assert one.tooltip, f"{node_id}.{one.id} has no tooltip"
            assert len(one.tooltip) > 15
        catch_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        assert top.id in parameters or catch_all
        if top.optional and top.id in parameters:
            assert parameters[top.id].default is not inspect.Parameter.empty, f"{node_id}.{top.id}"
    for output in schema.outputs:
        assert output.tooltip


def test_execute_stays_thin(classes):
    for node_id, node in classes.items():
        source, _ = inspect.getsourcelines(node.execute)
        body = source[next(i for i, line in enumerate(source) if "-> io.NodeOutput:" in line) + 1 :]
        assert len(body) < 30, node_id
