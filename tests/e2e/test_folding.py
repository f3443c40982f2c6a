"""Inputs that people rarely touch are folded away in both renderers; the classic one gets a button for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

STARTER = Path(__file__).resolve().parents[2] / "example_workflows" / "text_to_3d_starter.json"
PROMPT, EXPORT = "2", "5"
SHOWN = {
    "classic": "return n.widgets.filter(w => n.isWidgetVisible(w) && w.type !== 'button').map(w => w.name)",
    "vue": """
        const rows = document.querySelectorAll(`[data-node-id="${n.id}"] [data-testid=node-widget]`);
        return [...rows].map(row => row.innerText.trim().split("\\n")[0]);
    """,
}


def of_node(page, node, body):
    """A function's body, run with the node `n` of the open graph."""
    return page.run(f"const n = app.canvas.graph.getNodeById({node}); {body};")


@pytest.fixture
def opened(page, renderer):
    """The starter template; the renderer's name."""
    page.run("await app.loadGraphData($[0]);", json.loads(STARTER.read_text(encoding="utf-8")))
    page.wait("widgets", lambda: of_node(page, PROMPT, SHOWN[renderer]))
    return renderer


def test_the_prompt_node_opens_with_the_prompt_alone(page, opened):
    assert of_node(page, PROMPT, SHOWN[opened]) == ["prompt"]
    assert of_node(page, EXPORT, SHOWN[opened]) == ["filename_prefix", "format", "turntable"]


def test_a_button_of_the_classic_renderer_shows_the_rest_and_folds_it_again(page, classic):
    page.run("await app.loadGraphData($[0]);", json.loads(STARTER.read_text(encoding="utf-8")))
    press = "n.widgets.find(w => w.type === 'button').callback()"
    values = of_node(page, PROMPT, "return n.serialize().widgets_values")
    height = of_node(page, PROMPT, "return n.size[1]")
    of_node(page, PROMPT, press)
    assert len(of_node(page, PROMPT, SHOWN["classic"])) == len(values)
    assert of_node(page, PROMPT, "return n.size[1]") > height
    assert of_node(page, PROMPT, "return n.serialize().widgets_values") == values
    of_node(page, PROMPT, press)
    assert of_node(page, PROMPT, SHOWN["classic"]) == ["prompt"]
    assert of_node(page, PROMPT, "return n.size[1]") == height
