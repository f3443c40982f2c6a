"""A node that is renamed goes on working in graphs of before: through ComfyUI's own replacement."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
def manager(host, monkeypatch):
    """ComfyUI's manager as a server has it, and the pack's Export under another name."""
    from app.node_replace_manager import NodeReplaceManager
    from server import PromptServer

    import nodes as core

    made = NodeReplaceManager()
    server = type("Server", (), {"node_replace_manager": made})()
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)
    monkeypatch.setitem(core.NODE_CLASS_MAPPINGS, "ThrowAwayToday", object)
    return made


def graph():
    return {
        "1": {"class_type": "DreamerXLInitialize", "inputs": {}, "_meta": {}},
        "2": {"class_type": "ThrowAwayOnce", "inputs": {"splat": ["1", 0], "kind": "ply"}, "_meta": {}},
        "3": {"class_type": "DreamerXLPreview", "inputs": {"splat": ["2", 0]}, "_meta": {}},
    }


def test_a_renamed_node_takes_the_old_ones_place(manager, ours):
    renames = ours("nodes.renames")
    change = renames.renamed("ThrowAwayOnce", "ThrowAwayToday", ["splat", "kind"], changed={"kind": "format"})
    asyncio.run(renames.offer_replacements([change]))
    prompt = graph()
    manager.apply_replacements(prompt)
    assert prompt["2"]["class_type"] == "ThrowAwayToday"
    assert prompt["2"]["inputs"] == {"splat": ["1", 0], "format": "ply"}
    assert prompt["3"] == graph()["3"]
    (told,) = manager.as_dict()["ThrowAwayOnce"]
    assert told["old_widget_ids"] == ["splat", "kind"]


def test_without_it_the_old_name_stays_unknown(manager, ours):
    asyncio.run(ours("nodes.renames").offer_replacements())
    prompt = graph()
    manager.apply_replacements(prompt)
    assert prompt == graph()


def test_todays_renames_lead_to_nodes_that_exist(ours):
    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    known = {node.GET_SCHEMA().node_id for node in found}
    for one in ours("nodes.renames").RENAMED:
        assert one.new_node_id in known
        assert one.old_node_id not in known
