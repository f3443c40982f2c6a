"""Every widget at, below and above its range through ComfyUI's own checks, and sockets with what nobody expects."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch

SETTINGS_NODES = (
    "DreamerXLTSMGuidance", "DreamerXLGradientClip", "DreamerXLCameras", "DreamerXLDensityControl",
    "DreamerXLRegularizers",
)  # fmt: skip


@pytest.fixture(scope="module")
def classes(ours):
    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    return {node.GET_SCHEMA().node_id: node for node in found}


@pytest.fixture(scope="module")
def refused(classes, host):
    """What ComfyUI answers to a node with these inputs, as `/prompt` does."""
    import execution

    import nodes

    nodes.NODE_CLASS_MAPPINGS.update(classes)

    def ask(node_id, inputs):
        prompt = {"1": {"class_type": node_id, "inputs": dict(inputs)}}
        _, errors, _ = asyncio.run(execution.validate_inputs("p", prompt, "1", {}))
        return [f"{e['message']}: {e['details']}" for e in errors if e["type"] != "required_input_missing"]

    return ask


@pytest.fixture(scope="module")
def numbers(classes):
    """(node, inputs that make it appear, name, input) of every number, those inside of choices, too."""
    from comfy_api.latest import io

    found = []
    for node_id, node in classes.items():
        for top in node.GET_SCHEMA().inputs:
            if isinstance(top, (io.Int.Input, io.Float.Input)):
                found.append((node_id, {}, top.id, top))
            for option in getattr(top, "options", None) or []:
                for inner in getattr(option, "inputs", []):
                    if isinstance(inner, (io.Int.Input, io.Float.Input)):
                        found.append((node_id, {top.id: option.key}, f"{top.id}.{inner.id}", inner))
    return found


def test_a_number_at_its_bounds_is_taken_and_beyond_them_refused_by_name(numbers, refused):
    assert len(numbers) > 80
    wrong = []
    for node, given, name, one in numbers:
        assert one.min is not None, (node, name)
        assert one.max is not None, (node, name)
        for value in (one.min, one.max):
            told = " ".join(refused(node, {**given, name: value}))
            if any(words in told for words in ("smaller than min", "bigger than max", f"{one.id}: expected a number")):
                wrong.append((node, name, value, told))
        step = 1 if isinstance(one.min, int) else 1e-3 + 1e-6 * max(abs(one.min), abs(one.max))
        for value in (one.min - step, one.max + step):
            told = " ".join(refused(node, {**given, name: value}))
            if one.id not in told:
                wrong.append((node, name, value, told or "taken"))
    assert not wrong


def test_what_is_no_number_is_refused_before_or_in_the_run(numbers, refused, execute):
    """ComfyUI lets NaN through, which is smaller than nothing and larger than nothing."""
    wrong = []
    for node, given, name, one in numbers:
        if node not in (*SETTINGS_NODES, "DreamerXLInitialize") or type(one).io_type != "FLOAT":
            continue
        if any(one.id in text for text in refused(node, {**given, name: math.nan})):
            continue
        group = {key: {key: option, one.id: math.nan} for key, option in given.items()}
        try:
            execute(node, **(group or {name: math.nan}))
            wrong.append((node, given, name))
        except ValueError:
            pass
    assert not wrong


def test_between_the_untouched_value_and_the_lowest_there_is_nothing(numbers, refused, execute):
    """-1 leaves the preset's; -0.5 must not do so without a word."""
    wrong, seen = [], 0
    for node, given, name, one in numbers:
        if node not in SETTINGS_NODES or not isinstance(one.min, float):
            continue
        low = (one.extra_dict or {}).get("lowest")
        if low is None or one.min >= low:
            continue
        seen += 1
        value = (one.min + low) / 2
        group = {key: {key: option, one.id: value} for key, option in given.items()}
        if any(one.id in text for text in refused(node, {**given, name: value})):
            continue
        try:
            execute(node, **(group or {name: value}))
            wrong.append((node, given, name, value))
        except ValueError:
            pass
    assert seen > 10
    assert not wrong


@pytest.fixture
def splat(execute):
    def make(count=4):
        return execute("DreamerXLInitialize", source={"source": "sphere", "count": count}).args[0]

    return make


def unusual(ours, make):
    """SPLATs by what is unusual about them."""
    host = ours("nodes.host.splat")
    one = host.items(make())[0]
    transparent = ours("dreamer_core.gaussians").Gaussians(
        one.means, one.quats, one.log_scales, torch.full_like(one.logit_opacities, -30.0), one.sh0, one.shN
    )
    around = ours("dreamer_core.gaussians").Gaussians(
        one.means * 100, one.quats, one.log_scales + 5, one.logit_opacities, one.sh0, one.shN
    )
    return {
        "nothing": None,
        "a word": "splat",
        "no Gaussian": host.pack([one[:0]]),
        "one Gaussian": host.pack([one[:1]]),
        "a batch": host.pack([one, one[:2]]),
        "a batch with an empty one": host.pack([one, one[:0]]),
        "all transparent": host.pack([transparent]),
        "cameras inside": host.pack([around]),
    }


CALLS = {
    "DreamerXLCleanup": {},
    "DreamerXLRender": {"path": {"path": "turntable", "frames": 2}, "resolution": 64},
    "DreamerXLPreview": {},
    "DreamerXLExport": {"filename_prefix": "unusual/a"},
    "DreamerXLInitialize": {},
}
KINDS = (
    "nothing", "a word", "no Gaussian", "one Gaussian", "a batch", "a batch with an empty one", "all transparent",
    "cameras inside",
)  # fmt: skip
MUST_WORK = {"one Gaussian", "all transparent", "cameras inside"}
TITLES = {
    "DreamerXLCleanup": "Dreamer XL Clean Up", "DreamerXLRender": "Dreamer XL Render",
    "DreamerXLPreview": "Dreamer XL Preview", "DreamerXLExport": "Dreamer XL Export",
    "DreamerXLInitialize": "Dreamer XL Initialize",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("node", CALLS)
def test_a_splat_that_nobody_expects_is_taken_or_refused_by_the_nodes_name(node, kind, execute, ours, splat):
    given = unusual(ours, splat)[kind]
    inputs = {"source": {"source": "splat", "splat": given}} if node == "DreamerXLInitialize" else {"splat": given}
    if kind in MUST_WORK or (kind == "a batch" and node != "DreamerXLInitialize"):
        execute(node, **inputs, **CALLS[node])
    else:
        with pytest.raises(ValueError, match=f"^{TITLES[node]}: splat: expected "):
            execute(node, **inputs, **CALLS[node])


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimiser_takes_one_splat_with_something_in_it(kind, execute, ours, splat, loaded, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    model, clip, vae = loaded
    prompt = execute("DreamerXLPrompt", clip=clip, prompt="a red mug").args[0]
    small = {"preset": "starter", "steps": 1, "views": 1, "resolution": 64, "seed": 0, "final_views": 1}
    given = unusual(ours, splat)[kind]
    inputs = {"model": model, "vae": vae, "prompt": prompt, "splat": given, **small, "cleanup": "off"}
    if kind in MUST_WORK:
        made = execute("DreamerXLOptimize", **inputs).args[0]
        assert torch.isfinite(made.positions).all()
    else:
        with pytest.raises(ValueError, match=r"Dreamer XL Optimize: splat: expected "):
            execute("DreamerXLOptimize", **inputs)
