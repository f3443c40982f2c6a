"""Graphs of the version before settings were declared once: they mean what they meant, except where named here.

`api.json` holds API graphs with every value spelled out, `editor.json` workflows as the editor saved them, and
`configs.json` what that version (commit aae9e8a) handed to its optimiser for each Optimize node of `api.json`.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data" / "old_graphs"
GRAPHS = json.loads((DATA / "api.json").read_text(encoding="utf-8"))
CONFIGS = json.loads((DATA / "configs.json").read_text(encoding="utf-8"))
SETTINGS = {
    "guidance": "DreamerXLTSMGuidance",
    "clip": "DreamerXLGradientClip",
    "cameras": "DreamerXLCameras",
    "density": "DreamerXLDensityControl",
    "regularizers": "DreamerXLRegularizers",
}

PAIRS = {
    "guidance.t_range": ("guidance.t_min", "guidance.t_max"),
    "guidance.t_annealing": ("guidance.t_first", "guidance.t_last"),
}
"""Settings that were a pair -> the two they are now."""
RENAMED = {
    "cameras.fov_floor": "cameras.final_fov_min",
    "cameras.radius_floor": "cameras.final_radius",
    "cameras.azimuth_limit": "cameras.final_azimuth",
}
OF_METHOD = {
    "gamma": {"tsm"},
    "cfg": {"tsm", "ism", "sds", "sdi", "asd", "sds_bridge"},
    "csd_empty": {"csd"},
    "asd_shift": {"asd"},
    "t_first": {"sdi"},
    "t_last": {"sdi"},
    "sdi_steps": {"sdi"},
    "sdi_cfg": {"sdi"},
    "sdi_noise": {"sdi"},
}
"""Settings that every configuration had, and the methods that read them."""

ON_PURPOSE = [
    # setting, the value before, now; what must not be wired for it, presets (the released code, value by value)
    ("clip.depth_mode", "per_pixel", "global", "clip", {"official", "starter"}),
    ("guidance.gamma", 0.954, (1 - 0.3**2) ** 0.5, "guidance", {"official", "starter"}),
    ("scale_noise", 0.112, 0.2**0.5 / 4, "", {"official", "paper", "fast", "low_vram"}),
    # An input that old graphs do not have.
    ("cameras.fov_pool_views", 0, 10, "", {"official", "paper", "fast", "low_vram"}),
    # The released code keeps the rate of the higher harmonics constant; no node has a widget for it.
    (
        "learning_rates.shN",
        [2.5e-4, 1.5e-4],
        [2.5e-4, 2.5e-4],
        "",
        {"official", "paper", "fast", "low_vram", "starter"},
    ),
    # Read where a MODEL has a multi-view adapter, which no graph of then has.
    ("multiview_share", [0.0, 0.0], [0.5, 0.1], "", {"fast"}),
    # The starter's weights know one distance.
    ("cameras.radius", [3.4, 3.8], [3.6, 3.6], "cameras", {"starter"}),
    ("cameras.fov", [math.degrees(0.58), math.degrees(0.64)], [math.degrees(0.61)] * 2, "cameras", {"starter"}),
    ("cameras.center_jitter", 0.02, 0.0, "cameras", {"starter"}),
    ("cameras.target_jitter", 0.02, 0.0, "cameras", {"starter"}),
    ("cameras.up_jitter", 0.01, 0.0, "cameras", {"starter"}),
    # The head's published configuration.
    ("cameras.elevation", [0.0, 30.0], [0.0, 45.0], "", {"official", "paper", "fast", "low_vram", "starter"}),
]


def flat(config, path=""):
    for name, value in config.items():
        yield from flat(value, f"{path}{name}.") if isinstance(value, dict) else [(f"{path}{name}", value)]


def in_todays_words(config):
    """A configuration of the previous version under today's names, in today's units."""
    found = {}
    for name, value in flat(config):
        if name in PAIRS:
            found |= dict(zip(PAIRS[name], value or (999, 200)))
        elif name in ("cameras.fov", "cameras.fov_floor"):  # radians
            degrees = [math.degrees(v) for v in value] if isinstance(value, list) else math.degrees(value)
            found[RENAMED.get(name, name)] = degrees
        else:
            found[RENAMED.get(name, name)] = value
    found["cleanup.floater_share"] *= 100.0  # a share then, per cent now
    found |= {
        "guidance.rescale": 0.0,
        "guidance.teacher": "auto",
        "guidance.t_lift": 0,
        "guidance.cfg_fade": 0.0,
        "multiview_share": [0.0, 0.0],
        "multiview_half_width": 1.1,
    }  # new
    found["clip.ramp_from"] = found["clip.ramp_from"] or 0.0
    found["cameras.fov_pool_views"] = 0  # every view drew its own
    method = found["guidance.method"]
    return {
        name: value
        for name, value in found.items()
        if not name.startswith("guidance.") or method in OF_METHOD.get(name.removeprefix("guidance."), {method})
    }


def nested(inputs):
    """An API node's inputs as `execute` gets them."""
    found = {}
    for name, value in inputs.items():
        choice, _, inner = name.partition(".")
        if inner:
            found[choice][inner] = value
        else:
            found[name] = {name: value} if name in ("method", "mode") else value
    return found


@pytest.fixture
def built(execute, ours, monkeypatch):
    """What every Optimize node of a graph hands to the optimiser, through the nodes themselves."""
    node, presets = ours("nodes.optimize"), ours("dreamer_core.optimize").PRESETS
    starter = presets["starter"]  # its values are others since, and a graph of before is told by those of before
    monkeypatch.setitem(presets, "starter", replace(starter, config=starter.change))
    monkeypatch.setattr(node, "check_model", lambda model: None)
    monkeypatch.setattr(node, "multiview_note", lambda *_: "")
    monkeypatch.setattr(node, "height_note", lambda *_: "")
    fit = ours("dreamer_core.optimize.profiles").Fitted(
        ours("dreamer_core.teachers.kinds").TeacherKind(), None, "auto", {}
    )
    monkeypatch.setattr(node, "fitted_to", lambda model, config, *rest: (config, fit))

    class Stopped(Exception):
        pass

    def run(graph):
        found = {}
        for number, data in graph.items():
            if data["class_type"] != "DreamerXLOptimize":
                continue

            def stop(model, vae, prompt, splat, config, *_, number=number):
                found[number] = config
                raise Stopped

            monkeypatch.setattr(node, "run", stop)
            inputs = {k: None if isinstance(v, list) else v for k, v in data["inputs"].items()}
            for name, kind in SETTINGS.items():
                if name in data["inputs"]:
                    source = graph[data["inputs"][name][0]]
                    assert source["class_type"] == kind
                    inputs[name] = execute(kind, **nested(source["inputs"])).args[0]
            with pytest.raises(Stopped):
                execute("DreamerXLOptimize", **inputs)
        return found

    return run


@pytest.mark.parametrize("name", GRAPHS)
def test_it_builds_the_configuration_it_built(built, ours, name):
    values = ours("dreamer_core.setting_values").values
    made = built(GRAPHS[name])
    assert set(made) == set(CONFIGS[name])
    for number, config in made.items():
        inputs = GRAPHS[name][number]["inputs"]
        today = dict(values(config)) | {"guidance.offset_noise": config.guidance.noise_offset}
        before = in_todays_words(CONFIGS[name][number])
        angles = GRAPHS[name][inputs["cameras"][0]]["inputs"]["angles"] if "cameras" in inputs else "custom"
        for setting, old, new, unwired, presets in ON_PURPOSE:
            if setting == "cameras.elevation" and angles != "head":
                continue
            spelled_out = unwired in inputs or (setting == "scale_noise" and inputs["scale_noise"] >= 0)
            if setting in before and inputs["preset"] in presets and not spelled_out:
                assert before[setting] == old
                before[setting] = new
        assert set(today) == set(before)
        for setting, value in before.items():
            assert today[setting] == pytest.approx(tuple(value) if isinstance(value, list) else value, abs=1e-9), (
                setting
            )


@pytest.mark.parametrize("name", GRAPHS)
def test_the_host_accepts_it(ours, host, monkeypatch, name):
    """ComfyUI's own check, of names, types, bounds and choices; files that are not there apart."""
    import execution

    import nodes

    classes = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    graph = {n: dict(d) for n, d in GRAPHS[name].items() if d["class_type"].startswith("DreamerXL")}
    for data in graph.values():  # links to nodes of others are cut
        inputs = data["inputs"].items()
        data["inputs"] = {k: v for k, v in inputs if not isinstance(v, list) or v[0] in graph}
    for node in classes:
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    _, _, _, errors = asyncio.run(execution.validate_prompt("id", graph, None))
    wrong = [e for found in errors.values() for e in found["errors"]]
    ignored = ("required_input_missing", "value_not_in_list")
    assert [e for e in wrong if e["type"] not in ignored] == []
    texts = [e["details"] for e in wrong if e["type"] == "value_not_in_list"]
    assert all("YOUR-" in text or "tiny" in text for text in texts), texts
