"""The region in the viewer: drawn over the splat, moved and sized by mouse, a point chosen by a click."""

from __future__ import annotations

import numpy as np
import pytest
from test_viewer import shown

GRAPH = {
    "1": {
        "class_type": "DreamerXLInitialize",
        "inputs": {"source": "file", "source.file": "figure.ply", "source.radius": 0.0, "seed": 0},
    },
    "2": {
        "class_type": "DreamerXLRegion",
        "inputs": {
            "splat": ["1", 0], "shape": "box", "shape.x": 0.0, "shape.y": 0.1, "shape.z": 0.0,
            "shape.width": 0.8, "shape.height": 0.6, "shape.depth": 0.7,
        },
    },
}  # fmt: skip


def values(page):
    """The numbers in the node's widgets by name."""
    found = page.run(
        "const widgets = app.canvas.graph.getNodeById('2').widgets;"
        "return widgets.filter(w => typeof w.value === 'number').map(w => [w.name.replace('shape.', ''), w.value]);"
    )
    return dict(found)


def count(page, kind):
    return page.viewer("2", f"panel.querySelectorAll('.dxl-region {kind}').length")


def spots(page):
    """Where the handles are, across."""
    return page.viewer("2", "[...panel.querySelectorAll('.dxl-region circle')].map(c => Number(c.getAttribute('cx')))")


def pull(page, handle, dx, dy):
    """Drag a handle of the region with the mouse."""
    drag(page, *page._middle("2", f"panel.querySelector('[data-handle=\"{handle}\"]')"), dx, dy)


def drag(page, x, y, dx, dy):
    from selenium.webdriver import ActionChains

    actions = ActionChains(page.driver, duration=60)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(x, y)
    pointer.pointer_down()
    for i in range(1, 5):
        pointer.move_to_location(x + dx * i // 4, y + dy * i // 4)
    pointer.pointer_up()
    actions.perform()


def test_a_box_is_moved_and_sized_by_mouse(page, renderer):
    page.load_api(GRAPH, f"region-{renderer}")
    page.show("2")
    assert count(page, "*") == 0
    page.queue()
    before = shown(page, "2")
    page.wait("the box", lambda: count(page, "path") == 12)
    assert count(page, "circle") == 7
    first = values(page)
    assert (first["width"], first["height"], first["x"]) == (0.8, 0.6, 0.0)

    pull(page, "+x", 40, 0)
    page.wait("a wider box", lambda: values(page)["width"] != first["width"])
    wider = values(page)
    grown = wider["width"] - 0.8
    assert 0.05 < grown < 1.5
    assert wider["x"] == pytest.approx(grown / 2, abs=1e-4)  # the other side stays
    assert {n: wider[n] for n in ("y", "z", "height", "depth")} == {n: first[n] for n in ("y", "z", "height", "depth")}

    pull(page, "middle", 0, -40)
    page.wait("a higher box", lambda: values(page)["y"] != first["y"])
    higher = values(page)
    assert 0.05 < higher["y"] - 0.1 < 1.5
    assert {n: higher[n] for n in ("width", "height", "depth")} == {n: wider[n] for n in ("width", "height", "depth")}
    assert np.abs(shown(page, "2").astype(int) - before.astype(int)).max() < 60  # the object has not been turned

    was = spots(page)
    left, bottom = page.viewer("2", "(r => [Math.round(r.left), Math.round(r.bottom)])(panel.getBoundingClientRect())")
    # Beside the handles the object is turned as ever, and the box turns along.
    drag(page, left + 25, bottom - 25, 120, -60)
    page.wait("the box turned", lambda: max(abs(a - b) for a, b in zip(was, spots(page))) > 5)
    assert values(page) == higher

    prompt = page.run("return (await app.graphToPrompt()).output['2'].inputs;")
    assert prompt["shape.width"] == pytest.approx(wider["width"])
    assert prompt["shape.y"] == pytest.approx(higher["y"])


def test_a_click_chooses_the_point(page, renderer):
    from selenium.webdriver import ActionChains

    page.load_api(
        {**GRAPH, "2": {"class_type": "DreamerXLRegion", "inputs": {
            "splat": ["1", 0], "shape": "points", "shape.x": 0.0, "shape.y": 9.0, "shape.z": 0.0, "shape.count": 50}}},
        f"point-{renderer}",
    )  # fmt: skip
    page.show("2")
    page.queue()
    shown(page, "2")
    x, y = page._middle("2", "panel")
    actions = ActionChains(page.driver, duration=60)
    actions.w3c_actions.pointer_action.move_to_location(x, y)
    actions.w3c_actions.pointer_action.click()
    actions.perform()
    page.wait("a point", lambda: values(page)["y"] != 9.0)
    place = values(page)
    assert np.hypot(np.hypot(place["x"], place["y"]), place["z"]) < 1.2
    assert place["count"] == 50
    page.wait("its mark", lambda: count(page, "circle") == 1)
