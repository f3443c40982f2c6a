"""A look at the teacher in the editor, in both renderers: four pictures and a line on the node."""

from __future__ import annotations

GRAPH = {
    "1": {"class_type": "DreamerXLLoader", "inputs": {"checkpoint": "starter (built in)"}},
    "2": {
        "class_type": "DreamerXLPrompt",
        "inputs": {
            "clip": ["1", 1], "prompt": "a yellow duck", "left": "left side view", "right": "right side view",
        },
    },
    "3": {
        "class_type": "DreamerXLTeacherPreview",
        "inputs": {
            "model": ["1", 0], "vae": ["1", 2], "prompt": ["2", 0], "preset": "starter", "steps": 3, "views": 1,
            "resolution": 0, "sampling_steps": 8,
        },
    },
}  # fmt: skip
SHOWN = """
const node = app.rootGraph.nodes.find(n => n.type === "DreamerXLTeacherPreview");
const inside = document.querySelector(`[data-node-id="${node.id}"]`);
const pictures = [...(node.imgs ?? []), ...(inside?.querySelectorAll("img") ?? [])];
return {
    pictures: pictures.filter(i => i.complete && i.naturalWidth > 0).length,
    text: inside ? inside.innerText : document.body.innerText,
};
"""


def test_pictures_and_findings_are_shown(page, comfy, renderer):
    seed = {"classic": 1, "vue": 2}[renderer]  # nothing is said of a result that the server has kept
    page.load_api(GRAPH | {"3": {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "seed": seed}}}, f"look-{renderer}")
    page.queue()
    page.wait("the findings on the node", lambda: "4,000 Gaussians" in page.run(SHOWN)["text"], 180)
    page.show("3", 0.9)
    page.wait("a picture on the node", lambda: page.run(SHOWN)["pictures"] > 0, 30)
    page.screenshot(f"{renderer}-look-at-the-teacher")
    assert " evaluations · 4,000 Gaussians" in page.run(SHOWN)["text"]
