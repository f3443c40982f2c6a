"""Memory, disks and clocks that fail under the nodes: the run goes on, or keeps what it has."""

import errno
import os
import shutil
import time

import pytest
import torch


@pytest.fixture
def run(execute, loaded, ours, tmp_path, monkeypatch):
    """Two steps of two views on the miniature, with a store of its own."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    model, clip, vae = loaded
    splat = execute("DreamerXLInitialize", source={"source": "sphere", "count": 100}).args[0]
    prompt = execute("DreamerXLPrompt", clip=clip, prompt="a red mug").args[0]

    def optimize(**changes):
        small = {"preset": "starter", "steps": 2, "views": 2, "resolution": 64, "seed": 0, "final_views": 1}
        inputs = {"model": model, "vae": vae, "prompt": prompt, "splat": splat, **small, **changes}
        return execute("DreamerXLOptimize", **inputs)

    return optimize


@pytest.fixture
def said(ours, monkeypatch):
    """Lines on nodes."""
    lines = []
    for name in ("nodes.host.progress", "nodes.running"):
        monkeypatch.setattr(ours(name), "say", lambda text, node: lines.append(text))
    return lines


def scarce(ours, monkeypatch, samples, error):
    """A MODEL with memory for so many samples at once."""
    teacher = ours("nodes.host.sdxl").HostSDXL
    plain, calls = teacher._evaluate, []

    def evaluate(self, positive, negative):
        place = positive or negative
        calls.append(len(place.x))
        if len(place.x) > samples:
            raise error()  # a new one: its traceback holds what is on the stack
        return plain(self, positive, negative)

    monkeypatch.setattr(teacher, "_evaluate", evaluate)
    return calls


def first_gradients(ours, monkeypatch):
    """What Adam is given in the first step of the next run, by parameter.

    Results of two runs cannot be compared as closely: where a gradient is nothing but rounding, Adam's first steps are
    as long as any.
    """
    loop, found = ours("dreamer_core.optimize.loop"), {}
    plain = loop.update

    def update(state, *more):
        if state.step == 0 and not found:
            found.update({name: value.grad.clone() for name, value in state.params.items() if value.grad is not None})
        plain(state, *more)

    monkeypatch.setattr(loop, "update", update)
    return found


@pytest.mark.parametrize(
    "error",
    [lambda: torch.OutOfMemoryError("CUDA out of memory"), lambda: torch.AcceleratorError("CUDA error: out of memory")],
    ids=["allocator", "driver"],
)
def test_out_of_memory_goes_on_with_one_view_and_says_so(run, ours, monkeypatch, said, caplog, error):
    import comfy.model_management as mm

    assert mm.is_oom(error())
    whole = first_gradients(ours, monkeypatch)
    run()
    calls = scarce(ours, monkeypatch, 1, error)
    monkeypatch.setattr(ours("nodes.host.store").RunStore, "load", lambda *_: None)
    monkeypatch.setattr(ours("nodes.host.progress"), "INTERVAL", 0.0)
    halved = first_gradients(ours, monkeypatch)
    run()
    assert calls.count(2) == 1  # tried once
    assert [r.getMessage() for r in caplog.records if "Out of memory" in r.getMessage()] == [
        "Out of memory: from step 0 on, 1 of 2 views at a time"
    ]
    assert any("out of memory: 1 view(s) at a time" in line for line in said)
    assert "memory leak" not in caplog.text  # what failed is gone
    assert set(whole) == set(halved) != set()
    for name, gradient in whole.items():
        if name == "quats":  # of balls, which no rotation changes: rounding alone, of which Adam makes whole steps
            assert float(gradient.norm()) < 1e-6
            assert float(halved[name].norm()) < 1e-6
        else:
            assert float((gradient - halved[name]).norm()) < 1e-4 * float(gradient.norm()), name


def test_one_view_that_is_too_much_is_advice_that_comfyui_knows_as_memory(run, ours, monkeypatch):
    import comfy.model_management as mm

    scarce(ours, monkeypatch, 0, lambda: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError, match="Dreamer XL Optimize: out of memory: one view at a time") as error:
        run(seed=77)
    assert mm.is_oom(error.value)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_neither_the_run_nor_its_result(run, ours, monkeypatch, caplog):
    import folder_paths

    whole = run(seed=5).args[0]
    monkeypatch.setattr(ours("nodes.host.store").RunStore, "load", lambda *_: None)
    monkeypatch.setattr(ours("dreamer_core.files"), "_flush", full)
    shutil.rmtree(os.path.join(folder_paths.get_temp_directory(), "dreamer_xl"))  # where it would be found again
    out = run(seed=5)
    assert torch.equal(out.args[0].positions, whole.positions)
    assert out.ui == {}
    told = caplog.text
    assert "the run could not be saved and cannot be resumed ([Errno 28] No space left on device)" in told
    assert "the viewer shows nothing, its files could not be written" in told


def test_an_export_on_a_full_disk_names_the_node_and_leaves_nothing(execute, ours, monkeypatch, host):
    import folder_paths

    splat = execute("DreamerXLInitialize", source={"source": "sphere", "count": 10}).args[0]
    monkeypatch.setattr(ours("dreamer_core.files"), "_flush", full)
    with pytest.raises(OSError, match=r"Dreamer XL Export: cannot read or write a file: .*No space left on device"):
        execute("DreamerXLExport", splat=splat, filename_prefix="full/a")
    assert os.listdir(os.path.join(folder_paths.get_output_directory(), "full")) == []


def test_two_servers_that_export_at_once_overwrite_nothing(execute, ours, monkeypatch):
    """Both have looked at the folder before either has written."""
    import folder_paths

    splat = execute("DreamerXLInitialize", source={"source": "sphere", "count": 10}).args[0]
    plain = folder_paths.get_save_image_path
    looked = plain("twice/a", folder_paths.get_output_directory())
    monkeypatch.setattr(folder_paths, "get_save_image_path", lambda *_: looked)
    names = [execute("DreamerXLExport", splat=splat, filename_prefix="twice/a").ui["3d"][0]["filename"] for _ in "ab"]
    assert names == ["a_00001_.ply", "a_00002_.ply"]
    with ours("dreamer_core.files").claimed(ours("nodes.export").Path(looked[0]), "a_00003_"):
        third = execute("DreamerXLExport", splat=splat, filename_prefix="twice/a").ui["3d"][0]["filename"]
    assert third == "a_00004_.ply"
    assert not [name for name in os.listdir(looked[0]) if name.startswith(".")]


def state(ours, step):
    optimize = ours("dreamer_core.optimize")
    start = ours("dreamer_core.initializers").initial_shape("sphere", 10, torch.Generator())
    made = optimize.OptimizationState.create(start, optimize.PRESETS["starter"].config.learning_rates)
    made.step = step
    return made


def test_a_clock_that_is_set_back_drops_no_new_run(ours, tmp_path, monkeypatch):
    store_module = ours("nodes.host.store")
    monkeypatch.setattr(store_module, "MAX_STATES", 2)
    future = time.time() + 1e6
    for i in range(2):
        store_module.RunStore(f"old{i}", tmp_path).save(state(ours, 1))
        os.utime(tmp_path / f"old{i}" / "0000001.safetensors", (future + i, future + i))
    store = store_module.RunStore("new", tmp_path)
    store.save(state(ours, 3))
    assert store.steps() == [3]
    assert sorted(p.parent.name for p in tmp_path.rglob("*.safetensors")) == ["new", "old1"]


def test_what_a_killed_server_had_begun_to_save_goes_when_the_next_one_starts(ours, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    store_module, files = ours("nodes.host.store"), ours("dreamer_core.files")
    store = store_module.RunStore("run")
    store.save(state(ours, 2))
    left = []
    files.write_atomically(tmp_path / "a.safetensors", lambda path: left.append(path.name) or path.touch())
    abandoned = store_module.runs_folder() / "run" / left[0]
    abandoned.touch()
    store_module.remove_leftovers()
    assert not abandoned.exists()
    assert store.steps() == [2]


def test_two_servers_share_a_folder_of_runs(ours, tmp_path):
    """Each finds what the other saved, and neither removes it."""
    first, second = (ours("nodes.host.store").RunStore("run", tmp_path) for _ in "ab")
    rates = ours("dreamer_core.optimize").PRESETS["starter"].config.learning_rates
    first.save(state(ours, 2))
    second.save(state(ours, 4))
    first.save(state(ours, 3))
    assert sorted(second.steps()) == [3, 4]
    assert first.load(9, rates, torch.device("cpu")).step == 4


def test_a_saved_run_that_vanishes_while_it_is_looked_for_counts_as_none(ours, tmp_path, monkeypatch):
    store_module = ours("nodes.host.store")
    store = store_module.RunStore("run", tmp_path)
    rates = ours("dreamer_core.optimize").PRESETS["starter"].config.learning_rates
    store.save(state(ours, 2))
    monkeypatch.setattr(store, "steps", lambda: [2, 5])
    assert store.load(9, rates, torch.device("cpu")).step == 2
