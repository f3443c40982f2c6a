"""The optimiser's keys, store and progress, in this process."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def scene(execute, loaded):
    """The inputs of a run that takes a second."""
    model, clip, vae = loaded
    splat = execute("DreamerXLInitialize", source={"source": "sphere", "count": 100}).args[0]
    prompt = execute("DreamerXLPrompt", clip=clip, prompt="a red mug").args[0]
    return {"model": model, "vae": vae, "prompt": prompt, "splat": splat}


@pytest.fixture
def optimize(execute, scene, ours, tmp_path, monkeypatch):
    """DreamerXLOptimize on the scene, with a store of its own and the steps it made counted."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    module, made = ours("dreamer_core.optimize.run"), []
    core = module.optimize

    def counting(*args):
        for report in core(*args):
            made.append(report.step)
            yield report

    monkeypatch.setattr(module, "optimize", counting)

    def run(steps, **changes):
        made.clear()
        small = {"preset": "starter", "steps": steps, "views": 1, "resolution": 64, "seed": 0, "final_views": 1}
        out = execute("DreamerXLOptimize", **{**scene, **small, **changes})
        return out.args[0], list(made)

    return run


def same(a, b):
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("positions", "scales", "rotations", "sh"))


def test_again_longer_shorter_other_and_back(optimize):
    first, made = optimize(3)
    assert made == [0, 1, 2]
    again, made = optimize(3)
    assert made == []
    assert same(first, again)
    _, made = optimize(2, seed=1)
    assert made == [0, 1]
    back, made = optimize(3)  # A -> B -> A
    assert made == []
    assert same(first, back)
    longer, made = optimize(5)
    assert made == [3, 4]
    assert not same(longer, first)
    shorter, made = optimize(3)
    assert made == []
    assert same(first, shorter)


def test_a_cancelled_run_goes_on_and_ends_the_same(optimize, ours, monkeypatch):
    import comfy.model_management as mm

    whole, _ = optimize(4, seed=7)
    progress = ours("nodes.host.progress").Progress
    update = progress.update

    def cancel_after_two(self, report, gaussians):
        update(self, report, gaussians)
        if report.step == 1:
            mm.interrupt_current_processing(True)

    store = ours("nodes.host.store").RunStore
    monkeypatch.setattr(store, "load", lambda *_: None)
    monkeypatch.setattr(progress, "update", cancel_after_two)
    with pytest.raises(mm.InterruptProcessingException):
        optimize(4, seed=7)
    monkeypatch.undo()
    resumed, _ = optimize(4, seed=7)
    assert same(whole, resumed)


def test_cancelled_state_is_on_disk(optimize, ours, monkeypatch, tmp_path):
    import comfy.model_management as mm

    progress = ours("nodes.host.progress").Progress
    monkeypatch.setattr(progress, "update", lambda self, report, _: mm.interrupt_current_processing(report.step == 1))
    with pytest.raises(mm.InterruptProcessingException):
        optimize(4, seed=9)
    states = [p.stem for p in tmp_path.rglob("*.safetensors")]
    assert states == ["0000002"]
    _, made = optimize(2, seed=9)
    assert made == []


def test_a_name_says_everything_but_the_number_of_steps(ours, scene):
    module, core = ours("nodes.running"), ours("dreamer_core.optimize")
    change = ours("dreamer_core.setting_values").changed
    config = core.PRESETS["starter"].config

    def name(cfg=config, backend="numba", **changes):
        inputs = {**scene, **changes}
        found, note = module.run_name(*(inputs[k] for k in ("model", "vae", "prompt", "splat")), cfg.recipe, backend)
        assert note == ""
        return found

    base = name()
    assert name() == base
    for same_run in ({"steps": 900}, {"recompute_encoder": True, "memory": "low"}, {"cleanup.enabled": False}):
        assert name(change(config, same_run)) == base
    changed = {name(change(config, {"seed": 1})), name(change(config, {"guidance.cfg": 8.0})), name(backend="torch")}
    views = scene["prompt"].views
    changed.add(name(prompt=replace(scene["prompt"], views=replace(views, front=views.back))))
    changed.add(name(prompt=replace(scene["prompt"], sizes={"width": 512})))
    model = scene["model"]
    weight = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v.weight"
    for delta, strength in ((1.0, 1.0), (1.0, 0.5), (2.0, 1.0)):
        patched = model.clone()
        patched.add_patches({weight: ("diff", (torch.full((128, 128), delta),))}, strength)
        changed.add(name(model=patched))
    moved = ours("nodes.host.splat").pack(ours("nodes.host.splat").items(scene["splat"]))
    moved.positions[0, 0, 0] += 1e-3
    changed.add(name(splat=moved))
    assert len(changed) == 9
    assert None not in changed
    assert base not in changed


def test_key_of_equal_patches_is_equal_and_survives_loading(ours, scene):
    """patches_uuid is drawn anew by every LoraLoader; what counts is the content, and that not twice."""
    identity, host = ours("nodes.host.identity"), ours("nodes.host.sdxl")
    name = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v.weight"

    def patched():
        model = scene["model"].clone()
        model.add_patches({name: ("diff", (torch.full((128, 128), 0.01),))}, 1.0)
        return model

    def key(model):
        found = identity.Key()
        identity.add_model(found, model)
        return found.hexdigest()

    first, second = patched(), patched()
    before = key(first)
    assert key(second) == before
    with torch.inference_mode(False), host.loaded_teacher(first, scene["vae"], views=1, resolution=64):
        assert key(first) == before
    assert key(second) == before


def test_store_is_bounded(ours, tmp_path, monkeypatch):
    store_module, optimize = ours("nodes.host.store"), ours("dreamer_core.optimize")
    monkeypatch.setattr(store_module, "MAX_STATES", 3)
    start = ours("dreamer_core.initializers").initial_shape("sphere", 10, torch.Generator())
    rates = optimize.PRESETS["starter"].config.learning_rates
    for i in range(5):
        state = optimize.OptimizationState.create(start, rates)
        state.step = i + 1
        store_module.RunStore(f"run{i}", tmp_path).save(state)
        time.sleep(0.01)
    assert sorted(p.parent.name for p in tmp_path.rglob("*.safetensors")) == ["run2", "run3", "run4"]
    assert not (tmp_path / "run0").exists()
    broken = tmp_path / "run4" / "0000005.safetensors"
    broken.write_bytes(b"broken")
    assert store_module.RunStore("run4", tmp_path).load(9, rates, torch.device("cpu")) is None
    assert not broken.exists()


def test_a_full_device_costs_no_saved_run(ours, tmp_path, monkeypatch):
    store_module, optimize = ours("nodes.host.store"), ours("dreamer_core.optimize")
    rates = optimize.PRESETS["starter"].config.learning_rates
    state = optimize.OptimizationState.create(
        ours("dreamer_core.initializers").initial_shape("sphere", 10, torch.Generator()), rates
    )
    state.step = 3
    store = store_module.RunStore("run", tmp_path)
    store.save(state)

    def fail(error):
        def load(*_):
            raise error

        return load

    monkeypatch.setattr(store_module, "load_state", fail(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        store.load(3, rates, torch.device("cpu"))
    monkeypatch.setattr(store_module, "load_state", fail(PermissionError("locked")))
    assert store.load(3, rates, torch.device("cpu")) is None
    monkeypatch.undo()
    assert store.load(3, rates, torch.device("cpu")).step == 3


def test_progress_text_and_rate_of_previews(ours, monkeypatch):
    module = ours("nodes.host.progress")
    sent = []
    monkeypatch.setattr(module.Progress, "_text", lambda self, text: sent.append(text))
    progress = module.Progress(1000, 0, None, "numba")
    start = ours("dreamer_core.initializers").initial_shape("sphere", 1234, torch.Generator())
    began = time.monotonic()
    for step in range(600):
        progress.update(SimpleNamespace(step=step, clipped=0.25, gaussians=1234, at_once=None), start)
        time.sleep(0.002)
    seconds = time.monotonic() - began
    assert 1 <= len(sent) <= 2 * seconds + 1
    assert sent[-1].startswith("step ")
    assert "/1000 · " in sent[-1]
    assert " left · 25% clipped · 1,234 Gaussians" in sent[-1]
    assert module.duration(3723) == "1:02:03"


def test_cameras_by_subject(ours, execute):
    build = ours("nodes.optimize").build_config

    def cameras(preset, **values):
        return build(preset, execute("DreamerXLCameras", **values).args[0]).cameras

    head = cameras("official", angles="head", radius_min=4.0)
    assert (head.azimuth, head.elevation, head.radius) == ((-80.0, 80.0), (0.0, 45.0), (4.0, 5.5))
    assert head.concentration == 1.5
    assert cameras("official", angles="head", concentration=1.0).concentration == 1.0
    assert head.azimuth_range(1000) == (-180.0, 180.0)
    still = cameras("starter", angles="head")  # 300 steps without a progress of their own
    assert (still.progress_every, still.radius_factor, still.fov_factor) == (75, 1.0, 1.0)
    assert cameras("starter", angles="head", progress_every=0).progress_every == 0
    custom = cameras("official", azimuth_min=-30.0, azimuth_max=30.0, fov_pool=500)
    assert custom.azimuth_range(5000) == (-30.0, 30.0)
    assert custom.fov_pool == 500


def test_prompt_with_other_sides_avoided_and_artefacts(execute, loaded, ours):
    cameras = ours("dreamer_core.cameras").orbit_cameras([45.0], 0.0, 3.0, 0.6, 64)
    more = {"perp_neg": True, "perp_neg_weight": -1.0, "perp_neg_front_decay": 0.0, "artefacts": "blurry"}
    plain = execute("DreamerXLPrompt", clip=loaded[1], prompt="a mug").args[0].views.at(cameras)
    full = execute("DreamerXLPrompt", clip=loaded[1], prompt="a mug", **more).args[0].views.at(cameras)
    assert plain.perpendicular == ()
    assert plain.artefact is None
    assert float(full.perpendicular[0].weight) == -1.0
    assert full.artefact.pooled.shape == plain.positive.pooled.shape
    assert not torch.equal(full.artefact.pooled, plain.positive.pooled)


def test_words_without_effect_are_named(execute, loaded, optimize, monkeypatch, ours):
    said = []
    monkeypatch.setattr(ours("nodes.running"), "say", lambda text, _: said.append(text))
    words = {"prompt": "a mug", "artefacts": "blurry", "perp_neg_weight": -1.0}
    optimize(1, prompt=execute("DreamerXLPrompt", clip=loaded[1], **words).args[0])
    assert "no effect: prompt.perp_neg_weight (prompt.perp_neg is false)" in said[0]
    assert "no effect: prompt.artefacts (sds does not read it)" in said[0]


def test_sds_bridge_needs_words_for_artefacts(optimize, execute, loaded):
    bridge = execute("DreamerXLTSMGuidance", method={"method": "sds_bridge"}).args[0]
    with pytest.raises(ValueError, match=r"Dreamer XL Optimize: prompt: expected words for artefacts, .* got none"):
        optimize(1, guidance=bridge)
    words = execute("DreamerXLPrompt", clip=loaded[1], prompt="a mug", artefacts="blurry, noisy").args[0]
    _, made = optimize(1, guidance=bridge, prompt=words)
    assert made == [0]


def test_the_result_is_cleaned_and_the_stored_run_is_not(optimize, ours, monkeypatch):
    node, said = ours("nodes.optimize"), []
    monkeypatch.setattr(node, "say", lambda text, node_id: said.append(text))
    dirty, _ = optimize(2, cleanup="off")
    assert dirty.positions.shape[1] == 100
    assert said == []
    build, strict = node.build_config, ours("dreamer_core.optimize").CleanupConfig(min_opacity=0.0995, floaters=False)
    monkeypatch.setattr(node, "build_config", lambda *args: replace(build(*args), cleanup=strict))
    cleaned, made = optimize(2)
    assert made == []  # the same run
    count = cleaned.positions.shape[1]
    assert 0 < count < 100
    assert len(said) == 1
    assert said[0].startswith(f"{count} Gaussians · removed {100 - count} transparent, 0 floating")
    _, made = optimize(3)
    assert made == [2]


def test_clean_up_of_a_batch(execute, ours):
    pack = ours("nodes.host.splat").pack
    shape = lambda n, **more: ours("dreamer_core.initializers").initial_shape("sphere", n, torch.Generator(), **more)
    out = execute("DreamerXLCleanup", splat=pack([shape(40, opacity=0.5), shape(30, opacity=0.001)])).args[0]
    assert out.counts.tolist() == [40, 30] if out.counts is not None else out.positions.shape[1] == 40
    mixed = pack([shape(40, opacity=0.5)])
    mixed.opacities[0, :7] = 0.03
    assert execute("DreamerXLCleanup", splat=mixed, min_opacity=0.05).args[0].positions.shape[1] == 33
    with pytest.raises(
        ValueError, match=r"Dreamer XL Clean Up: cleanup.min_opacity: expected a number from 0 to 0.99, got 2.0"
    ):
        execute("DreamerXLCleanup", splat=mixed, min_opacity=2.0)


def test_low_memory_gives_the_same_splat(optimize):
    plain, _ = optimize(1, seed=5, views=2)
    import folder_paths

    folder_paths.user_directory += "-low"
    low, made = optimize(1, seed=5, views=2, memory="low")
    assert made == [0]
    torch.testing.assert_close(low.positions, plain.positions, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        ("DreamerXLTSMGuidance", {"method": "magic"}, "Dreamer XL Guidance: method: expected one of preset, tsm, ism,"),
        ("DreamerXLTSMGuidance", {"method": {"method": "tsm"}, "t_min": 9, "t_max": 3}, "guidance.t_min: expected at"),
        (
            "DreamerXLTSMGuidance",
            {"method": {"method": "tsm", "gamma": 1.5}},
            "Dreamer XL Guidance: gamma: expected a number from 0",
        ),
        (
            "DreamerXLGradientClip",
            {"mode": "hard"},
            "Dreamer XL Gradient Clip: mode: expected one of preset, off, pixel",
        ),
        ("DreamerXLDensityControl", {"every": 20_000}, "Dreamer XL Density Control: every: expected a whole number"),
        ("DreamerXLRegularizers", {"scale": 1e4}, "Dreamer XL Regularizers: scale: expected a number from 0"),
        ("DreamerXLInitialize", {}, "Dreamer XL Initialize: source: expected one of sphere"),
        ("DreamerXLInitialize", {"source": {"source": "file", "file": "../x.ply"}}, "file: expected a file in"),
        ("DreamerXLCameras", {"radius_min": 9.0}, "Dreamer XL Cameras: cameras.radius: expected the lower value first"),
        ("DreamerXLCameras", {"white": 0.8, "black": 0.8}, "background.white: expected at most 1 together with black"),
    ],
)
def test_messages_begin_with_the_node(execute, node, inputs, message):
    """Values that no preset can take are refused by the node that holds them."""
    with pytest.raises(ValueError, match=message):
        execute(node, **inputs)


def test_what_fits_one_preset_alone_is_refused_by_the_others(execute, ours):
    """A radius of at most 4 is above the starter's nearest camera, and below the others'."""
    near = execute("DreamerXLCameras", radius_max=4.0).args[0]
    build, error = ours("nodes.optimize").build_config, ours("dreamer_core.errors").InputError
    assert build("starter", near).cameras.radius == (3.6, 4.0)
    with pytest.raises(error, match=r"cameras.radius: expected the lower value first, got \(5.2, 4.0\)"):
        build("official", near)


def test_divergence_is_a_clear_message(optimize, ours, monkeypatch, tmp_path):
    teacher = ours("nodes.host.sdxl").HostSDXL
    monkeypatch.setattr(teacher, "predict", lambda self, requests: [r.x * float("nan") for r in requests])
    with pytest.raises(RuntimeError, match=r"^Dreamer XL Optimize: 10 steps in a row had NaN"):
        optimize(20, seed=11)
    assert not list(tmp_path.rglob("*.safetensors"))  # a ruined state is not resumed


def test_settings_without_effect_are_named(ours, execute):
    node, presets = ours("nodes.running"), ours("dreamer_core.optimize").PRESETS
    off = execute("DreamerXLDensityControl", max_gaussians=900).args[0]
    sds = execute("DreamerXLTSMGuidance", method={"method": "sds"}, delta=50, t_max=400).args[0]
    for preset, given, text in (
        ("starter", off, "no effect: density.max_gaussians (density.enabled is false)"),
        ("official", off, ""),
        ("official", sds, "no effect: guidance.delta (sds does not read it)"),
    ):
        assert node.without_use(node.build_config(preset, given), presets[preset].config, given, None) == text


def test_the_starters_words_for_the_height_are_named_beside_another_preset(ours, execute, loaded):
    note = ours("nodes.running").height_note
    words = {"clip": loaded[1], "prompt": "a red mug"}
    plain = execute("DreamerXLPrompt", **words).args[0]
    from_above = execute("DreamerXLPrompt", **words, overhead="overhead view").args[0]
    level = execute("DreamerXLPrompt", **words, overhead="overhead view", overhead_from=-10.0).args[0]
    assert [note(prompt, "fast") for prompt in (plain, from_above)] == ["", ""]
    assert note(level, "starter") == ""
    assert "from -10 degrees up" in note(level, "fast")
    assert "set overhead to 'overhead view' in Dreamer XL Prompt, from -10 to 90 degrees" in note(plain, "starter")


def test_a_look_at_the_teacher(execute, loaded, monkeypatch, ours):
    """Four pictures as ComfyUI's own decoder makes them, and the cost of the preset; a cancel gets through."""
    import comfy.model_management as mm

    said = []
    monkeypatch.setattr(ours("nodes.teacher_preview"), "say", lambda text, _: said.append(text))
    inputs = {
        "model": loaded[0],
        "vae": loaded[2],
        "prompt": execute("DreamerXLPrompt", clip=loaded[1], prompt="a red mug").args[0],
        "preset": "starter",
        "sampling_steps": 2,
    }
    images, text = execute("DreamerXLTeacherPreview", **inputs).args
    assert images.shape == (4, 128, 128, 3)
    assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0
    assert (images[0] - images[1]).abs().max() > 0.01
    lines = text.splitlines()
    assert lines[0] == "Teacher: epsilon-prediction"
    assert lines[1].startswith("Directions told apart by (share of the error): front ")
    assert "Network evaluations: 1,200 in 300 steps" in lines
    assert "Gaussians: 4,000" in lines
    assert " · 1,200 evaluations · 4,000 Gaussians" in said[-1]
    again, _ = execute("DreamerXLTeacherPreview", **inputs).args
    assert torch.equal(images, again)
    few = execute("DreamerXLInitialize", source={"source": "sphere", "count": 50}).args[0]
    grown = execute("DreamerXLDensityControl", enabled="on", max_gaussians=90).args[0]
    smaller = {"splat": few, "density": grown, "steps": 10, "views": 1, "resolution": 64}
    images, text = execute("DreamerXLTeacherPreview", **inputs, **smaller).args
    assert images.shape == (4, 64, 64, 3)
    assert "Gaussians: 50, 90 at the most" in text
    assert " in 10 steps" in text
    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        execute("DreamerXLTeacherPreview", **inputs)
