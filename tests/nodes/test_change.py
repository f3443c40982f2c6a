"""Restyle, Edit and Region in the real host."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

SMALL = {"preset": "starter", "steps": 3, "views": 1, "resolution": 64, "seed": 0, "final_views": 1}
FIELDS = ("positions", "scales", "rotations", "opacities", "sh")


@pytest.fixture
def store(tmp_path, monkeypatch, ours):
    """A store of its own, and the steps that were made."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    module, made = ours("dreamer_core.optimize.run"), []
    core = module.optimize

    def counting(*args):
        for report in core(*args):
            made.append(report.step)
            yield report

    monkeypatch.setattr(module, "optimize", counting)
    return made


@pytest.fixture
def splat():
    """300 Gaussians with harmonics, far away and large, with opacities and scales that rounding would change."""
    from comfy_api.latest import Types

    g = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(300, 3, generator=g), dim=-1)
    return Types.SPLAT(
        positions=(direction * 40 + torch.tensor([500.0, 20.0, -70.0]))[None],
        scales=torch.rand(1, 300, 3, generator=g) * 3 + 1,
        rotations=torch.randn(1, 300, 4, generator=g),
        opacities=torch.rand(1, 300, 1, generator=g) * 0.9 + 0.05,
        sh=torch.randn(1, 300, 4, 3, generator=g) * 0.3,
    )


def edit(execute, loaded, splat, node="DreamerXLEdit", **changes):
    model, clip, vae = loaded
    words = {"prompt": "a blue mug"} if node == "DreamerXLRestyle" else {"source": "a red mug", "prompt": "a blue mug"}
    inputs = {"model": model, "clip": clip, "vae": vae, "splat": splat, **words, **SMALL, **changes}
    return execute(node, **inputs)


def upper(execute, splat, **more):
    """Our Y is minus the SPLAT's."""
    box = {"shape": "box", "x": 500.0, "y": 0.0, "z": 70.0, "width": 200.0, "height": 40.0, "depth": 200.0}
    return execute("DreamerXLRegion", splat=splat, shape=box, **more)


def rows_equal(a, b):
    return torch.stack([(getattr(a, n)[0] == getattr(b, n)[0]).reshape(300, -1).all(1) for n in FIELDS]).all(0)


def test_what_lies_outside_is_the_splats_own_to_the_bit(execute, loaded, splat, store):
    region = upper(execute, splat).args[0]
    height = -splat.positions[0, :, 1]
    inside = (height.double() - 0.0).abs() <= 20
    assert 40 < inside.sum() < 260
    out = edit(execute, loaded, splat, region=region)
    same = rows_equal(splat, out.args[0])
    assert torch.equal(same, ~inside)
    assert store == [0, 1, 2]
    assert out.args[1].shape == (1, 64, 64, 3)
    assert out.args[1].min() < 0.9  # it is in the picture, however far away


def test_frozen_parts_of_a_splat_are_its_own_to_the_bit(execute, loaded, splat, store):
    made = edit(execute, loaded, splat, "DreamerXLRestyle", change="colours").args[0]
    for name in FIELDS[:-1]:
        assert torch.equal(getattr(made, name), getattr(splat, name)), name
    assert not torch.equal(made.sh, splat.sh)
    assert edit(execute, loaded, splat, "DreamerXLRestyle", harmonics="flatten").args[0].sh.shape[2] == 1


def test_again_and_with_other_settings_and_words(execute, loaded, splat, store):
    def run(**changes):
        store.clear()
        return edit(execute, loaded, splat, **changes).args[0], list(store)

    first, made = run()
    again, none = run()
    assert (made, none) == ([0, 1, 2], [])
    assert torch.equal(first.sh, again.sh)
    assert run(steps=4)[1] == [0, 1, 2, 3]  # few steps have a schedule of their own length
    assert run(source="a green mug")[1] == [0, 1, 2]
    assert run(strength=0.3)[1] == [0, 1, 2]
    assert run(region=upper(execute, splat).args[0])[1] == [0, 1, 2]


def test_a_cancelled_edit_goes_on_and_ends_the_same(execute, loaded, splat, store, ours, monkeypatch):
    import comfy.model_management as mm

    whole = edit(execute, loaded, splat, steps=4, seed=5).args[0]
    progress, kept = ours("nodes.host.progress").Progress, ours("nodes.host.store").RunStore
    with monkeypatch.context() as patched:
        patched.setattr(kept, "load", lambda *_: None)
        patched.setattr(progress, "update", lambda self, report, _: mm.interrupt_current_processing(report.step == 1))
        with pytest.raises(mm.InterruptProcessingException):
            edit(execute, loaded, splat, steps=4, seed=5)
    store.clear()
    resumed = edit(execute, loaded, splat, steps=4, seed=5).args[0]
    assert torch.equal(whole.sh, resumed.sh)


def test_the_live_view_shows_the_splat_where_it_is(execute, loaded, splat, store, ours, monkeypatch):
    sent = []
    snapshots = ours("nodes.host.snapshots")
    monkeypatch.setattr(
        snapshots.LiveView, "update", lambda self, step, steps, gaussians: sent.append(self._place(gaussians))
    )
    edit(execute, loaded, splat)
    middle = sent[-1].means.mean(dim=0)
    assert middle.tolist() == pytest.approx([500.0, -20.0, 70.0], abs=6)


def test_a_setting_that_does_nothing_is_named(execute, loaded, splat, store, ours, monkeypatch):
    said = []
    monkeypatch.setattr(ours("nodes.running"), "say", lambda text, node: said.append(text))
    sds = execute("DreamerXLTSMGuidance", method={"method": "sds"}, delta=50).args[0]
    edit(execute, loaded, splat, "DreamerXLRestyle", guidance=sds)
    assert "no effect: guidance.delta (sds does not read it)" in said[0]


def test_regions_of_every_kind(execute, splat, ours, monkeypatch):
    said = []
    monkeypatch.setattr(ours("nodes.region"), "say", lambda text, node: said.append(text))
    point = {"x": 500.0, "y": -20.0, "z": 70.0}
    execute("DreamerXLRegion", splat=splat, shape={"shape": "points", **point, "count": 7})
    ball = execute("DreamerXLRegion", splat=splat, shape={"shape": "sphere", **point, "radius": 100.0})
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    near = SimpleNamespace(**{n: getattr(splat, n) for n in (*FIELDS, "counts")})
    near.positions = splat.positions - torch.tensor([500.0, 20.0, -70.0])
    seen = {"shape": "mask", "mask": mask, "distance": 130.0, "fov": 45.0, "behind": True}
    out = execute("DreamerXLRegion", splat=near, shape=seen)
    half = int((near.positions[0, :, 1] < 0).sum())
    assert said[:2] == ["7 of 300 Gaussians", "300 of 300 Gaussians"]
    assert math.isclose(int(said[2].split()[0]), half, abs_tol=12)
    assert out.ui["dreamer_xl_view"][0]["count"] == 300
    few = {"shape": "points", **point, "count": 5}
    execute("DreamerXLRegion", splat=splat, shape=few, outside=True)
    assert said[-1] == "295 of 300 Gaussians"
    joined = execute("DreamerXLRegion", splat=splat, shape=few, also=ball.args[0])
    assert len(joined.args[0].parts) == 2
    assert said[-1] == "300 of 300 Gaussians"


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        ("DreamerXLEdit", {"source": " "}, "Dreamer XL Edit: source: expected what the splat is"),
        ("DreamerXLRestyle", {"prompt": ""}, "Dreamer XL Restyle: prompt: expected what the splat should be"),
        ("DreamerXLEdit", {"strength": 2.0}, "edit.strength: expected a number from 0 to 1"),
        ("DreamerXLEdit", {"focus": "region"}, "a region to go round"),
        ("DreamerXLEdit", {"preset": "none"}, "preset: expected one of"),
    ],
)
def test_messages_begin_with_the_node(execute, loaded, splat, store, node, inputs, message):
    with pytest.raises(ValueError, match=message) as error:
        edit(execute, loaded, splat, node, **inputs)
    assert str(error.value).startswith("Dreamer XL")


def test_an_empty_region_is_shown_so_that_it_can_be_moved_and_refused_where_it_is_used(
    execute, loaded, splat, store, monkeypatch, ours
):
    said = []
    monkeypatch.setattr(ours("nodes.region"), "say", lambda text, _: said.append(text))
    far = {"shape": "sphere", "x": 0.0, "y": 0.0, "z": 0.0, "radius": 1.0}
    found = execute("DreamerXLRegion", splat=splat, shape=far)
    assert found.ui is not None
    assert said[0].startswith("0 of ")
    assert said[0].endswith("move or resize the region before it is used")
    with pytest.raises(ValueError, match="Dreamer XL Edit: region: expected at least one Gaussian in it"):
        edit(execute, loaded, splat, region=found.args[0])
    with pytest.raises(ValueError, match="shape: expected one of box, sphere, points, mask"):
        execute("DreamerXLRegion", splat=splat, shape={"shape": "cube"})
