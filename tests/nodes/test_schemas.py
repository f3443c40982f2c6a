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
    "DreamerXLTeacherPreview",
    "DreamerXLOptimize",
    "DreamerXLRestyle",
    "DreamerXLEdit",
    "DreamerXLRegion",
    "DreamerXLCleanup",
    "DreamerXLRender",
    "DreamerXLPreview",
    "DreamerXLMesh",
    "DreamerXLBakeTexture",
    "DreamerXLMultiView",
    "DreamerXLExport",
    "DreamerXLEvaluate",
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


@pytest.mark.parametrize(
    ("node_id", "given"),
    [
        ("DreamerXLCameras", {"radius_min": 9.0, "radius_max": None}),
        ("DreamerXLCameras", {"fov_min": 40.0, "fov_max": None}),
        ("DreamerXLCameras", {"white": 1.0, "black": None}),
        ("DreamerXLPrompt", {"prompt": None, "overhead_from": 80.0, "overhead_to": None}),
        ("DreamerXLPromptFromConditioning", {"overhead_from": None, "overhead_to": 30.0}),
    ],
)
def test_a_linked_value_is_not_taken_for_the_default(classes, node_id, given):
    """The host passes None for what is linked; only the run knows whether it fits the other."""
    node = classes[node_id]
    assert node.validate_inputs(**given) is True
    unlinked = {name: value for name, value in given.items() if value is not None}
    assert node.validate_inputs(**unlinked) is not True  # beside the default it does not fit


@pytest.mark.parametrize(
    ("node_id", "given", "wrong"),
    [
        ("DreamerXLTSMGuidance", {"method": {"method": "preset"}, "t_min": 600, "t_max": 500}, "guidance.t_min"),
        ("DreamerXLCameras", {"radius_min": 6.0, "radius_max": 5.0}, "cameras.radius: expected the lower value first"),
        ("DreamerXLCameras", {"elevation_max": 100.0}, "elevation_max: expected a number from -90 to 90"),
        ("DreamerXLCameras", {"white": 0.8, "black": 0.8}, "background.white: expected at most 1"),
        ("DreamerXLOptimize", {"resolution": 100}, "resolution: expected a multiple of 64"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(classes, node_id, given, wrong):
    assert wrong in str(classes[node_id].validate_inputs(**given))


def test_execute_stays_thin(classes):
    for node_id, node in classes.items():
        source, _ = inspect.getsourcelines(node.execute)
        body = source[next(i for i, line in enumerate(source) if "-> io.NodeOutput:" in line) + 1 :]
        assert len(body) < 30, node_id
