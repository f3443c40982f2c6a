"""The viewer as a user meets it: live during a run, after it, after a reload, in both renderers, and in subgraphs."""

from __future__ import annotations

import copy
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from dreamer_core.formats import read_ply

STARTER = Path(__file__).resolve().parents[2] / "example_workflows" / "api" / "text_to_3d_starter.json"
FIGURE = {
    "1": {
        "class_type": "DreamerXLInitialize",
        "inputs": {"source": "file", "source.file": "figure.ply", "source.radius": 0.0, "seed": 0},
    },
    "2": {"class_type": "DreamerXLPreview", "inputs": {"splat": ["1", 0]}},
}
BACKGROUND = (0x2A, 0x2A, 0x2E)
ENDLESS = 100_000
"""Steps of a run that is cancelled once the live view was seen, however fast the machine."""


def starter(seed, steps=ENDLESS):
    """The starter graph, short and small, with our own viewer."""
    graph = json.loads(STARTER.read_text())
    graph["3"]["inputs"]["source.count"] = 500
    graph["4"]["inputs"] |= {"steps": steps, "views": 1, "resolution": 64, "final_views": 2, "seed": seed}
    graph["6"] = {"class_type": "DreamerXLPreview", "inputs": {"splat": ["4", 0]}, "_meta": {"title": "Preview"}}
    return graph


def covered(picture):
    """Share of the pixels that are not background."""
    return float((np.abs(picture[..., :3].astype(int) - BACKGROUND).max(-1) > 24).mean())


def changed(before, after):
    """Share of the pixels that differ visibly."""
    return float((np.abs(before.astype(int) - after.astype(int)).max(-1) > 24).mean())


def middle(picture, mask):
    """Mean column and row of the pixels of a mask, as shares of the picture."""
    rows, columns = np.nonzero(mask)
    assert len(rows) > 20
    return columns.mean() / picture.shape[1], rows.mean() / picture.shape[0]


def colors(picture):
    """Where the figure's parts are in a picture."""
    r, g, b = (picture[..., i].astype(int) for i in range(3))
    return {
        "red": (r > 110) & (r > 2 * g) & (r > 2 * b),
        "green": (g > 80) & (g > 2 * r) & (g > 1.5 * b),
        "blue": (b > 100) & (b > 2 * r) & (b > 1.5 * g),
        "white": (r > 120) & (g > 120) & (b > 110),
    }


def shown(page, node, state="result"):
    """The viewer's picture, once it is in a state and shows something."""
    page.wait(f"{state} of node {node}", lambda: page.state(node) == state)

    def picture():
        found = page.pixels(node)
        return found if found is not None and covered(found) > 0.01 else None

    found = None

    def settled():
        nonlocal found
        last, found = found, picture()
        return last is not None and found is not None and last.shape == found.shape and changed(last, found) < 0.002

    page.wait(f"picture of node {node}", settled)
    return found


def snapshot_status(comfy, page, id, method="GET"):
    client = page.run("return api.clientId")
    request = urllib.request.Request(
        f"{comfy.url}/dreamerxl/snapshots/{id}", headers={"Dreamer-XL-Client": client}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def listen(page):
    """Collect the messages about snapshots in the page."""
    page.run("window.__snapshots = []; api.addEventListener('dreamerxl.snapshot', e => __snapshots.push(e.detail));")


def test_the_figure_stands_upright_turns_and_stays(page, renderer):
    page.load_api(FIGURE, f"figure-{renderer}")
    page.show("2")
    page.screenshot(f"{renderer}-empty")
    assert page.state("2") == "empty"
    page.queue()
    front = shown(page, "2")
    page.screenshot(f"{renderer}-figure")
    assert page.status("2") == f"{5998:,} Gaussians"

    # Upright, not mirrored, in the middle and of good size: seen from the front, 25 degrees to the right.
    where = {name: middle(front, mask) for name, mask in colors(front).items()}
    assert where["red"][1] < where["blue"][1] - 0.1 < where["white"][1]
    assert where["green"][0] > where["red"][0] + 0.1
    solid = np.abs(front[..., :3].astype(int) - BACKGROUND).max(-1) > 24
    assert np.hypot(*(np.array(middle(front, solid)) - 0.5)) < 0.12
    assert 0.1 < solid.mean() < 0.6

    place = page.run("return [...app.rootGraph.getNodeById('2').pos, ...app.canvas.ds.offset, app.canvas.ds.scale]")
    page.drag("2", 120, 0)
    page.wait("turned", lambda: changed(front, page.pixels("2")) > 0.03)
    page.screenshot(f"{renderer}-turned")
    turned = shown(page, "2")
    nose = middle(turned, colors(turned)["blue"])
    assert nose[0] > where["blue"][0] + 0.1  # dragging to the right turns the front to the right
    page.wheel("2", -300)
    page.wait("nearer", lambda: covered(page.pixels("2")) > 1.1 * covered(turned))
    now = page.run("return [...app.rootGraph.getNodeById('2').pos, ...app.canvas.ds.offset, app.canvas.ds.scale]")
    assert now == place  # neither the node nor the graph went along
    page.press("2", "fit")
    page.wait("fitted", lambda: changed(front, page.pixels("2")) < 0.01)

    for name in ("black", "grey", "white", "checker"):
        page.press("2", "background")
        assert page.viewer("2", "panel.dataset.background") == name
    page.wait("see-through", lambda: page.pixels("2")[2, 2, 3] == 0)
    page.screenshot(f"{renderer}-checker")

    page.reload()
    page.wait("checker", lambda: page.viewer("2", "panel.dataset.background") == "checker")
    page.show("2")
    page.wait("result", lambda: page.state("2") == "result")
    page.wait("picture", lambda: (page.pixels("2")[..., 3] > 128).mean() > 0.1)
    page.screenshot(f"{renderer}-reloaded")


def cancelled(page, comfy, node):
    """Stop the run; its last state stays on the screen."""
    comfy.post("/interrupt", {})
    page.wait("stopped", lambda: page.state(node) == "stopped")
    assert page.status(node).startswith("stopped at step ")
    assert covered(shown(page, node, "stopped")) > 0.01
    page.wait("idle", lambda: not comfy.get("/queue")["queue_running"])


def shorten(page, node, steps=4):
    page.run(
        "app.canvas.graph.getNodeById($[0]).widgets.find(w => w.name === 'steps').value = $[1];"
        "app.canvas.graph.change();",
        node, steps,
    )  # fmt: skip


def test_a_run_from_the_queue_button(page, comfy, classic):
    page.load_api(starter(seed=1), "starter")
    page.show("4", 0.9)
    listen(page)
    page.run(
        "const found = document.querySelector('[data-testid=queue-button]');"
        "(found.matches('button') ? found : found.querySelector('button')).click();"
    )
    first = shown(page, "4", "live")
    assert page.status("4").endswith(f"/{ENDLESS} · 500 Gaussians")
    page.screenshot("classic-live")
    page.wait("progress", lambda: changed(first, page.pixels("4")) > 0.005)
    messages = page.run("return __snapshots")
    assert {(m["node"], m["count"], m["shown"]) for m in messages} == {("4", 500, 500)}
    (id,) = {m["id"] for m in messages}
    cancelled(page, comfy, "4")
    assert snapshot_status(comfy, page, id) == 200

    shorten(page, "4")
    page.queue()
    result = shown(page, "4")
    page.screenshot("classic-result")
    assert covered(result) > 0.01
    assert page.status("4").endswith(" Gaussians")
    later = page.run("return __snapshots.at(-1).id")
    assert later != id
    assert {snapshot_status(comfy, page, i) for i in (id, later)} == {404}  # replaced by a prompt, and by the result
    shown(page, "6")

    # From the history, as the panel of jobs restores it.
    outputs = next(iter(comfy.get("/history", max_items="1").values()))["outputs"]
    page.load_api(starter(seed=1), "again")
    assert page.state("4") == "empty"
    page.run("app.nodeOutputs = $[0];", outputs)
    page.show("6")
    shown(page, "6")
    shown(page, "4")


def test_a_run_inside_a_subgraph(page, comfy, renderer):
    page.load_api(starter(seed=2), f"subgraph-{renderer}")
    listen(page)
    outer = page.run(
        "const nodes = ['3', '4', '6'].map(id => app.rootGraph.getNodeById(id));"
        "const made = app.rootGraph.convertToSubgraph(new Set(nodes));"
        "await new Promise(r => setTimeout(r, 300)); app.canvas.openSubgraph(made.subgraph, made.node);"
        "await new Promise(r => setTimeout(r, 500)); return String(made.node.id);"
    )
    inner = page.run(
        "return Object.fromEntries(app.canvas.graph.nodes.map(n => [n.constructor.comfyClass, String(n.id)]))"
    )
    optimize = inner["DreamerXLOptimize"]
    page.show(optimize, 0.9)
    page.queue()
    shown(page, optimize, "live")
    page.screenshot(f"{renderer}-subgraph-live")
    assert page.run("return __snapshots[0].node") == f"{outer}:{optimize}"
    cancelled(page, comfy, optimize)
    shorten(page, optimize)
    page.queue()
    shown(page, optimize)
    page.screenshot(f"{renderer}-subgraph")
    page.show(inner["DreamerXLPreview"])
    shown(page, inner["DreamerXLPreview"])


def test_two_viewers_show_their_own(page, renderer):
    graph = copy.deepcopy(FIGURE)
    graph["3"] = {
        "class_type": "DreamerXLInitialize",
        "inputs": {"source": "box", "source.count": 400, "source.size": 0.5, "source.opacity": 0.9, "seed": 0},
    }
    graph["4"] = {"class_type": "DreamerXLPreview", "inputs": {"splat": ["3", 0]}}
    page.load_api(graph, f"two-{renderer}")
    page.run("app.rootGraph.getNodeById('4').pos = [...app.rootGraph.getNodeById('2').pos].map((v, i) => v + 400 * i);")
    page.show("2", 0.8)
    page.queue()
    figure, box = shown(page, "2"), shown(page, "4")
    page.screenshot(f"{renderer}-two-viewers")
    assert colors(figure)["red"].mean() > 0.03
    assert colors(box)["red"].mean() == 0
    page.drag("2", 80, 40)
    page.wait("turned", lambda: changed(figure, page.pixels("2")) > 0.03)
    assert changed(box, page.pixels("4")) < 0.002


def test_deleting_the_node_frees_its_snapshots(page, comfy, renderer):
    page.load_api(starter(seed=3), f"deleted-{renderer}")
    page.show("4")
    listen(page)
    page.queue()
    try:
        page.wait("live view", lambda: page.state("4") == "live")
        shown(page, "4", "live")
        (id,) = set(page.run("return __snapshots.map(m => m.id)"))
        assert snapshot_status(comfy, page, id) == 200
        page.run("app.rootGraph.remove(app.rootGraph.getNodeById('4'));")
        count = page.run("return __snapshots.length")
        page.wait("freed", lambda: snapshot_status(comfy, page, id) == 404)
        # The run goes on, and what it still makes for a node that is gone goes, too.
        page.wait("another snapshot", lambda: page.run("return __snapshots.length") > count)
        later = page.run("return __snapshots.at(-1).id")
        page.wait("freed", lambda: snapshot_status(comfy, page, later) == 404)
    finally:
        comfy.post("/interrupt", {})
    page.wait("idle", lambda: not comfy.get("/queue")["queue_running"])


@pytest.mark.parametrize("other_is", ["open", "being-opened"])
def test_a_result_stays_with_the_workflow_that_was_queued(page, comfy, classic, other_is):
    """Another workflow, with nodes of the same ids, is in front, or about to be, when the run ends."""
    path = "return app.extensionManager.workflow.activeWorkflow.path"
    kept = "return app.rootGraph.getNodeById('6').properties.dreamer_xl_view?.result ?? null"
    switch = (
        "const { openWorkflows } = app.extensionManager.workflow, found = openWorkflows.find(w => w.path === $[0]);"
        "await app.loadGraphData(found.activeState, true, true, found);"
    )
    graph = starter(seed=4 if other_is == "open" else 5, steps=3)
    page.load_api(graph, f"queued-{other_is}")
    queued = page.run(path)
    if other_is == "being-opened":  # Between its nodes and its place in front, for as long as the run takes.
        page.run(
            "const store = app.extensionManager.workflow, open = store.openWorkflow;"
            "const opening = new Promise(r => window.__open = r);"
            "store.openWorkflow = async (...values) => {"
            "  store.openWorkflow = open; window.__opening = true; await opening; return open.apply(store, values); };"
        )
    page.run(
        "window.__success = 0; api.addEventListener('execution_success', () => __success++);"
        "await app.queuePrompt(0, 1);"
        "window.__loaded = app.loadApiJson($[0], $[1]); if ($[2]) await __loaded;",
        graph, f"other-{other_is}", other_is == "open",
    )  # fmt: skip
    page.wait("the end", lambda: page.run("return __success"))
    if other_is == "being-opened":
        assert page.run("return __opening") is True
        assert page.run(path) == queued
        assert (page.state("6"), page.run(kept)) == ("empty", None)
        page.run("__open(); await __loaded;")
    other = page.run(path)
    assert other != queued
    page.run("await new Promise(r => setTimeout(r, 500));")
    assert (page.state("6"), page.run(kept)) == ("empty", None)
    page.run(switch, queued)
    page.show("6")
    shown(page, "6")
    assert page.run(kept) is not None
    page.run(switch, other)  # the frontend has kept the outputs for it, too
    page.run("await new Promise(r => setTimeout(r, 500));")
    assert (page.state("6"), page.run(kept)) == ("empty", None)


def test_a_refused_prompt_and_a_lost_snapshot_leave_no_rejection_unhandled(page, comfy, classic):
    graph = copy.deepcopy(FIGURE)
    graph["1"]["inputs"]["source.file"] = "gone.ply"
    page.load_api(graph, "refused")
    page.run(
        "window.__rejections = []; window.__replies = []; window.__lost = [];"
        "addEventListener('unhandledrejection', e => __rejections.push(String(e.reason?.stack ?? e.reason)));"
        "const fetchApi = api.fetchApi; api.fetchApi = async function (route, ...more) {"
        "  if (route.startsWith('/dreamerxl/snapshots/lost')) __lost.push(more[0]?.method ?? 'GET');"
        "  const reply = await fetchApi.call(this, route, ...more);"
        "  if (route === '/prompt') __replies.push(reply.status);"
        "  return reply; }; window.__fetchApi = fetchApi;"
    )
    try:
        page.queue()
        assert page.run("return __replies") == [400]
        page.driver.execute_cdp_cmd("Network.enable", {})
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/dreamerxl/*"]})
        message = {"node": "2", "workflow": None, "id": "lost", "step": 1, "steps": 2, "shown": 3, "count": 3}
        page.run(  # of a run that begins now: the latest one was another workflow's
            "api.dispatchEvent(new CustomEvent('execution_start', {detail: {prompt_id: 'lost'}}));"
            "api.dispatchEvent(new CustomEvent('dreamerxl.snapshot', {detail: $[0]}));",
            message,
        )
        page.wait("the lost snapshot", lambda: page.run("return __lost.length"))
        assert page.run("return __lost") == ["GET"]
        page.run("await new Promise(r => setTimeout(r, 1000));")  # the browser reports them some time later
        assert page.run("return __rejections") == []
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        page.run("api.fetchApi = __fetchApi;")
        page.reload()  # without the message


def test_download_and_full_screen(page, classic, tmp_path):
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.load_api(FIGURE, "download")
    page.show("2")
    page.queue()
    small = shown(page, "2")
    page.press("2", "download")
    page.wait("download", lambda: (tmp_path / "dreamer-xl.ply").is_file())
    assert len(read_ply(tmp_path / "dreamer-xl.ply")) == 5998

    page.click("2", "fullscreen")
    page.wait("full screen", lambda: page.viewer("2", "document.fullscreenElement === panel"))
    page.wait("larger", lambda: page.pixels("2").shape[1] > 2 * small.shape[1])
    large = shown(page, "2")
    page.screenshot("full-screen")
    assert covered(large) > 0.03
    page.click("2", "fullscreen")
    page.wait("back", lambda: page.pixels("2").shape == small.shape)


def test_pictures_where_the_frontend_draws_no_splats(page, renderer):
    page.run("window.__adapter = comfyAPI.SplatModelAdapter; comfyAPI.SplatModelAdapter = undefined;")
    try:
        page.load_api(FIGURE, f"pictures-{renderer}")
        page.show("2")
        page.queue()
        page.wait("result", lambda: page.state("2") == "result")
        size = "(i => i.hidden ? 0 : i.naturalWidth / i.naturalHeight)(panel.querySelector('img'))"
        assert page.wait("pictures", lambda: page.viewer("2", size)) == 1
        assert page.viewer("2", "panel.dataset.mode") == "pictures"
        page.screenshot(f"{renderer}-pictures")
    finally:
        page.run("comfyAPI.SplatModelAdapter = __adapter;")


def test_files_that_are_gone_are_said_to_be(page, comfy, classic):
    page.load_api(FIGURE, "missing")
    page.show("2")
    page.queue()
    shown(page, "2")
    (file,) = (
        entry["file"] for entry in page.run("return app.rootGraph.getNodeById('2').properties.dreamer_xl_view.result")
    )
    path = comfy.base / "temp" / file["subfolder"] / file["filename"]
    os.utime(path, (0, 0))  # a browser would keep so old a file for years
    page.reload()
    shown(page, "2")
    path.unlink()
    page.reload()
    page.wait("missing", lambda: page.state("2") == "missing")
    page.show("2")
    page.screenshot("missing")
    assert "queue again" in page.viewer("2", "panel.querySelector('.dxl-hint').textContent")


def test_nothing_of_ours_in_the_console(page):
    """Runs last: nothing that the tests above did made our files complain."""
    ours = [entry for entry in page.console() if "dreamer" in entry["message"].lower()]
    # A file and snapshots that tests removed.
    expected = ("pictures instead of the 3D view", "/api/view?", "snapshots/")
    assert [entry for entry in ours if not any(text in entry["message"] for text in expected)] == []
    assert page.run("return window.LiteGraph.registered_node_types.DreamerXLOptimize !== undefined")
