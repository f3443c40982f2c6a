"""Every declared setting in the nodes: one widget that says what its declaration says, and changes it alone."""

from __future__ import annotations

import asyncio

import pytest

ELSEWHERE = {
    "learning_rates.": "a file of settings or --set: six schedules are no widgets",
    "recompute_encoder": "decided by the node from the memory that is free",
    "cleanup.": "of a finished run, for the node Dreamer XL Clean Up; only `enabled` is Optimize's",
}
"""Settings without a widget that reaches the optimiser, and why; a name or the beginning of one."""
INPUT_OF = {"cleanup.enabled": "cleanup", "guidance.method": "method", "clip.mode": "mode"}
"""Inputs that are called otherwise than their field, or are a choice of their own."""
NODES = {
    "DreamerXLTSMGuidance": "guidance",
    "DreamerXLGradientClip": "clip",
    "DreamerXLCameras": "cameras",
    "DreamerXLDensityControl": "density",
    "DreamerXLRegularizers": "regularizers",
    "DreamerXLOptimize": "",
}
"""The nodes that hold settings, and the input of Optimize that they go to."""


@pytest.fixture(scope="module")
def schemas(ours):
    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    return {n.GET_SCHEMA().node_id: n.GET_SCHEMA() for n in found if n.GET_SCHEMA().node_id in NODES}


@pytest.fixture(scope="module")
def widgets(schemas):
    """(node, choice, option, input) of every widget; those outside of a choice have empty words for the middle two."""
    found = []
    for node, schema in schemas.items():
        for top in schema.inputs:
            found.append((node, "", "", top))
            for option in getattr(top, "options", None) or []:
                found += [(node, top.id, option.key, inner) for inner in getattr(option, "inputs", [])]
    return found


@pytest.fixture(scope="module")
def declared(ours):
    config = ours("dreamer_core.optimize").OptimizeConfig
    return [(s, end) for s in ours("dreamer_core.settings").declared_settings(config) for end in range(1 + s.is_pair)]


def named(setting, end):
    """The dotted name of a setting, or of one value of a pair."""
    return f"{setting.name}_{setting.knob.ends[end]}" if setting.is_pair else setting.name


def has_widget(setting):
    return not any(setting.name.startswith(w) for w in ELSEWHERE) or setting.name == "cleanup.enabled"


def widgets_of(widgets, setting, end):
    """Where a setting's value is entered."""
    id = INPUT_OF.get(setting.name, named(setting, end).rpartition(".")[2])
    place = {"background": "cameras", "cleanup": ""}.get(setting.path, setting.path)
    of_method = (
        (lambda c, o: (c, o) == ("method", setting.variant)) if setting.variant else (lambda c, o: c != "method")
    )
    return [w for w in widgets if w[3].id == id and NODES[w[0]] == place and of_method(*w[1:3])]


def test_every_setting_has_its_widget_in_one_node(widgets, declared):
    for setting, end in declared:
        found = widgets_of(widgets, setting, end)
        inside = {(choice, option) for _, choice, option, _ in found}
        if not has_widget(setting):
            assert found == [], setting.name
        elif setting.path == "clip" and setting.field in ("threshold", "ramp_from", "ramp_steps"):
            assert inside == {("mode", "preset"), ("mode", "pixel"), ("mode", "norm")}
        else:
            assert len(found) == 1, f"{setting.name} ({setting.variant})"
    reasons = {w for s, _ in declared for w in ELSEWHERE if s.name.startswith(w)}
    assert reasons == set(ELSEWHERE)  # none is left of what has gone


def test_every_widget_is_a_setting_or_has_a_reason(widgets, declared):
    others = {
        "model", "vae", "prompt", "splat", "preset", "guidance", "clip", "cameras", "density", "regularizers",
        "final_views", "renderer", "angles", "best_of", "trial_steps",
    }  # fmt: skip
    known = {id(w[3]) for s, end in declared for w in widgets_of(widgets, s, end)}
    assert {w[3].id for w in widgets if id(w[3]) not in known} == others


def test_widgets_say_what_is_declared(widgets, declared, ours):
    unset = ours("nodes.widgets").untouched
    for setting, end in declared:
        for _, _, _, widget in widgets_of(widgets, setting, end):
            knob, name = setting.knob, named(setting, end)
            tip = (knob.second_tip if end else knob.tip).strip()
            if setting.name in INPUT_OF and setting.name != "cleanup.enabled":
                assert widget.options[0].key == "preset"
                assert {o.key for o in widget.options[1:]} == set(setting.options)
                if setting.name == "guidance.method":
                    tip = " ".join(f"{variant.name}: {variant.summary()}." for variant in knob.of)
            elif setting.name == "seed":
                assert (widget.default, widget.min, widget.max) == (0, 0, knob.high)
            elif setting.number is not None:
                assert (widget.max, widget.step, widget.default) == (knob.high, knob.step, unset(setting)), name
                assert widget.min == widget.default < knob.low, name
                assert isinstance(widget.default, setting.number)
            else:
                values = {"on", "off"} if setting.kind is bool else set(setting.options)
                assert set(widget.options) == values | {unset(setting)}, name
                assert widget.default == unset(setting)
            assert tip in widget.tooltip, name
            assert (widget.display_name or "") == knob.label or setting.name in INPUT_OF
            assert bool(getattr(widget, "advanced", False)) == knob.advanced or setting.name == "guidance.method"


def meanings(setting, unset):
    """Values of the widget inside the bounds, and what they mean; `unset` means the preset's."""
    if setting.kind is bool:
        return [("on", True), ("off", False)]
    if setting.options:
        return [(option, option) for option in setting.options if option != unset]
    low, high = setting.knob.low, setting.knob.high
    third = low + (high - low) / 3
    numbers = (64, 512) if setting.name == "resolution" else (low, high, third)
    return [(setting.number(n), setting.number(n)) for n in numbers]


@pytest.fixture
def built(execute, ours, monkeypatch):
    """The configuration that a node's values and a preset give, through the nodes themselves."""
    node, core = ours("nodes.optimize"), ours("dreamer_core.optimize")
    monkeypatch.setattr(node, "check_model", lambda model: None)
    monkeypatch.setattr(node, "multiview_note", lambda *_: "")
    monkeypatch.setattr(node, "height_note", lambda *_: "")
    fit = ours("dreamer_core.optimize.profiles").Fitted(
        ours("dreamer_core.teachers.kinds").TeacherKind(), None, "auto", {}
    )
    monkeypatch.setattr(node, "fitted_to", lambda model, config, *rest: (config, fit))

    def run(preset, name, values):
        made = []

        class Stopped(Exception):
            pass

        def stop(model, vae, prompt, splat, config, *_):
            made.append(config)
            raise Stopped

        monkeypatch.setattr(node, "run", stop)
        inputs = {"model": None, "vae": None, "prompt": None, "splat": None, "preset": preset, "seed": 0}
        inputs |= {"steps": 0, "views": 0, "resolution": 0}
        inputs |= {NODES[name]: execute(name, **values).args[0]} if NODES[name] else values
        with pytest.raises(Stopped):
            execute("DreamerXLOptimize", **inputs)
        return made[0]

    run.presets = core.PRESETS
    return run


def untouched_values(schema):
    """What a new node sends."""
    values = {}
    for top in schema.inputs:
        options = getattr(top, "options", None) or []
        if options and hasattr(options[0], "inputs"):
            values[top.id] = {top.id: options[0].key, **{i.id: i.default for i in options[0].inputs}}
        elif getattr(top, "default", None) is not None:
            values[top.id] = top.default
    return values


@pytest.mark.parametrize("node", NODES)
def test_an_untouched_node_changes_nothing_on_any_preset(built, schemas, node):
    """Unless a default of a widget means something."""
    values = {k: v for k, v in untouched_values(schemas[node]).items() if k != "preset"}
    assert values
    for name, preset in built.presets.items():
        assert built(name, node, values) == preset.config, name


def touched(schema, choice, option, widget, value):
    """An untouched node's values, and this one; `choice` and `option` say where the widget lies."""
    values = {k: v for k, v in untouched_values(schema).items() if k != "preset"}
    if not choice:
        return values | {widget.id: {widget.id: value} if isinstance(values.get(widget.id), dict) else value}
    (top,) = (i for i in schema.inputs if i.id == choice)
    (inner,) = (o.inputs for o in top.options if o.key == option)
    return values | {choice: {choice: option, **{i.id: i.default for i in inner}, widget.id: value}}


def test_a_touched_widget_changes_its_setting_alone(built, widgets, declared, schemas, ours):
    """On every preset, from a node whose other widgets are untouched."""
    settings, errors, seen = ours("dreamer_core.setting_values"), ours("dreamer_core.errors"), 0
    unset = ours("nodes.widgets").untouched
    for setting, end in declared:
        for node, choice, option, widget in widgets_of(widgets, setting, end):
            for value, meaning in meanings(setting, unset(setting)):
                values = touched(schemas[node], choice, option, widget, value)
                for name, preset in built.presets.items():
                    base = preset.config
                    if setting.name == "guidance.method" or setting.variant:
                        base = settings.changed(base, {"guidance.method": setting.variant or value})
                    before = dict(settings.values(base))
                    if choice == "mode" and option != "preset":
                        before["clip.mode"] = option
                    wanted = list(before[setting.name]) if setting.is_pair else meaning
                    if setting.is_pair:
                        wanted[end] = meaning
                    wanted = {**before, setting.name: tuple(wanted) if setting.is_pair else wanted}
                    try:
                        settings.changed(base, {setting.name: wanted[setting.name]})
                    except errors.InputError:  # it does not go with this preset's other values
                        with pytest.raises(ValueError, match="expected"):
                            built(name, node, values)
                        continue
                    made = dict(settings.values(built(name, node, values)))
                    assert made == wanted, f"{named(setting, end)} {value!r} on {name}"
                    seen += 1
    assert seen > 900


def test_linked_and_missing_values_leave_the_presets(built):
    """What a graph of another program leaves out, and the untouched value where a link brings it."""
    for values in ({}, {"max_gaussians": None}, {"max_gaussians": -1, "start": -1, "enabled": "preset"}):
        assert built("low_vram", "DreamerXLDensityControl", values) == built.presets["low_vram"].config
    assert built("starter", "DreamerXLDensityControl", {"enabled": True}).density.enabled is True  # of earlier graphs
    assert built("official", "DreamerXLDensityControl", {"enabled": False}).density.enabled is False


@pytest.mark.parametrize(
    ("node", "values", "message"),
    [
        (
            "DreamerXLDensityControl",
            {"max_gaussians": 3},
            "max_gaussians: expected a whole number from 4 to 20000000, or",
        ),
        ("DreamerXLDensityControl", {"max_gaussians": -2}, "-1 for the preset's, got -2"),
        ("DreamerXLCameras", {"radius_min": 0.05}, "radius_min: expected a number from 0.1 to 100, or -1 for the"),
        ("DreamerXLCameras", {"radius_min": -0.9}, "radius_min: expected a number from 0.1 to 100, or -1 for the"),
        (
            "DreamerXLCameras",
            {"elevation_min": -90.5},
            "elevation_min: expected a number from -90 to 90 degrees, or -91",
        ),
        ("DreamerXLTSMGuidance", {"delta": 0}, "delta: expected a whole number from 1 to 500, or -1 for the preset's"),
        ("DreamerXLTSMGuidance", {"delta": 9, "delta_widening": -9}, r"change delta \(9\) or delta_widening \(-9\)"),
        ("DreamerXLRegularizers", {"scale": float("nan")}, "scale: expected a number from 0 to 1000, or -1"),
    ],
)
def test_what_no_preset_can_take_is_refused_by_its_node(execute, node, values, message):
    """One number leaves the preset's; nothing else that looks like a value is dropped."""
    with pytest.raises(ValueError, match=message):
        execute(node, **values)


def test_errors_name_what_was_touched_and_the_preset(execute, built):
    """Of the values that were set, those that the error speaks of; and what the others come from."""
    given = {"radius_min": 5.3, "radius_max": 5.25, "radius_factor": 0.9, "up_jitter": 0.0}
    with pytest.raises(
        ValueError, match=r"Dreamer XL Cameras: cameras.radius: expected the lower value first"
    ) as error:
        execute("DreamerXLCameras", **given)
    assert str(error.value).endswith(
        "change radius_min (5.3) or radius_max (5.25); on the preset official, and on all others"
    )
    fits_one = {"radius_min": 5.3, "up_jitter": 0.0}
    assert built("official", "DreamerXLCameras", fits_one).cameras.radius == (5.3, 5.5)
    with pytest.raises(
        ValueError, match=r"Dreamer XL Optimize: cameras.radius: expected the lower value first"
    ) as error:
        built("starter", "DreamerXLCameras", fits_one)
    assert str(error.value).endswith("change radius_min (5.3); the rest is the preset starter's")


@pytest.mark.parametrize("name", ["steps", "views", "resolution", "seed", "schedule_steps", "depth_share"])
def test_optimize_refuses_numbers_below_the_untouched_one(built, name):
    with pytest.raises(ValueError, match=f"Dreamer XL Optimize: {name}: expected .* got -2"):
        built("starter", "DreamerXLOptimize", {name: -2})


def test_a_resolution_below_its_bounds_is_refused(built):
    with pytest.raises(
        ValueError,
        match="Dreamer XL Optimize: resolution: expected a whole number from 64 to 2048, or 0 for the preset's, got 32",
    ):
        built("starter", "DreamerXLOptimize", {"resolution": 32})


def tooltips(widgets, node):
    return {widget.id: widget.tooltip for name, choice, _, widget in widgets if (name, choice) == (node, "")}


def test_tooltips_name_the_methods_that_do_not_read_a_setting(widgets, ours):
    tips, methods = tooltips(widgets, "DreamerXLTSMGuidance"), ours("dreamer_core.guidance").METHODS
    assert "Not read by sds, csd, sdi, asd, sds_bridge." in tips["delta"]
    assert "Not read by sdi." in tips["t_min"]
    assert "Not read" not in tips["weight"]
    for method in methods:
        for name, tip in tips.items():
            named = tip.partition("Not read by ")[2].partition(".")[0].split(", ")
            assert (method.name in named) == (name in method.ignores), (method.name, name)


def test_tooltips_show_every_presets_value_in_words(widgets):
    optimize, cameras = tooltips(widgets, "DreamerXLOptimize"), tooltips(widgets, "DreamerXLCameras")
    steps = "0: the preset's (official, paper, low_vram: 2,500; fast, multiview: 800; starter: 300)."
    assert optimize["steps"].endswith(steps)
    assert optimize["memory"].endswith(
        "auto: the preset's (official, paper, fast, multiview, starter: auto; low_vram: low)."
    )
    lowest = "-91: the preset's (official, paper, fast, multiview, low_vram: -15; starter: -10)."
    assert cameras["elevation_min"].endswith(lowest)
    assert tooltips(widgets, "DreamerXLTSMGuidance")["weight"].endswith("-1: the preset's (0.1).")


def test_tooltips_of_choices_say_what_is_declared(widgets, ours):
    angles = tooltips(widgets, "DreamerXLCameras")["angles"]
    assert "object: elevation -15 to 45 degrees, azimuth -180 to 180 degrees." in angles
    head = "head: elevation 0 to 45 degrees, azimuth -80 to 80 degrees, concentration 1.5, azimuth_factor 1.5."
    assert head in angles
    renderer = tooltips(widgets, "DreamerXLOptimize")["renderer"]
    for declared in ours("dreamer_core.rendering").RENDERERS:
        assert f"{declared.name}: {declared.purpose}." in renderer
