"""Changing a splat: what stays to the bit, what anchors hold, what the delta is."""

from dataclasses import replace

import pytest
import torch
from analytic import AnalyticTeacher, CameraPrompts, encode_images, psnr, two_colour_object

from dreamer_core.cameras import orbit_cameras
from dreamer_core.editing.anchors import limited, patch_difference
from dreamer_core.editing.config import edit_config, unread_edit
from dreamer_core.editing.delta import both, delta
from dreamer_core.editing.placement import Placement
from dreamer_core.editing.settings import EditSettings
from dreamer_core.editing.stages import rate_factors
from dreamer_core.editing.work import Work
from dreamer_core.errors import InputError
from dreamer_core.gaussians import Gaussians, rgb_to_sh
from dreamer_core.guidance import METHODS
from dreamer_core.guidance.base import Timesteps
from dreamer_core.optimize import (
    PRESETS,
    BackgroundConfig,
    DensityConfig,
    OptimizationState,
    load_state,
    optimize,
    save_state,
)
from dreamer_core.rendering import render
from dreamer_core.setting_values import values

RESOLUTION = 64
VIEWS = orbit_cameras([22.5 + 45 * i for i in range(8)], 20.0, 3.6, 0.65, RESOLUTION)
LOOSE = EditSettings(silhouette=0.0, depth=0.0, sizes_from=0.0, positions_from=0.0, position_rate=1.0)
"""Nothing is held."""


@pytest.fixture(scope="module")
def scene():
    return two_colour_object()


def recoloured(scene, rgb):
    return replace(scene, sh0=rgb_to_sh(torch.tensor(rgb)).expand(len(scene), 1, 3).clone())


def moved(scene, by):
    return replace(scene, means=scene.means + torch.tensor(by))


def config(edit, task="restyle", steps=10, **given):
    given = {"resolution": RESOLUTION, "guidance.cfg": 1.0, "guidance.method": "sds", **given}
    made = edit_config(PRESETS["starter"], task, {**{f"edit.{n}": v for n, v in values(edit)}, **given})
    return replace(made, steps=steps, schedule_steps=steps, background=BackgroundConfig(white=1.0, black=0.0))


def change(scene, teacher, cfg, free=None, source=None, state=None):
    work = Work.of(scene, cfg.edit, free, source)
    state = state or OptimizationState.create(work.changing, cfg.learning_rates)
    reports = list(optimize(state, teacher, CameraPrompts(), cfg, original=work.original))
    return work.result(state.gaussians.detach()), state, reports


def seen(gaussians):
    with torch.no_grad():
        return render(gaussians, VIEWS, backgrounds=torch.ones(8, 3))


def iou(a, b):
    a, b = seen(a).alphas > 0.5, seen(b).alphas > 0.5
    return float((a & b).sum() / (a | b).sum())


def equal(a, b):
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True))


# Anchors


def test_an_anchors_gradient_has_the_size_it_says():
    difference = torch.tensor([-1.0, -0.1, -0.05, 0.0, 0.02, 0.3])
    assert limited(difference, 0.1, 0.05).tolist() == pytest.approx([-0.05, -0.05, -0.025, 0.0, 0.01, 0.05])


def test_patches_differ_by_their_means():
    reference = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    stripes = torch.zeros(16, 16, 1)
    stripes[::2] = 0.4
    found = patch_difference(reference + stripes - 0.2 + 0.1, reference, 4)
    torch.testing.assert_close(found, torch.full_like(found, 0.1))  # stripes are no matter of large areas


def test_anchors_keep_outline_and_surface_where_the_teacher_moves_them(scene):
    teacher = AnalyticTeacher(moved(scene, [0.15, 0.1, 0.0]), RESOLUTION)
    rates = {"learning_rates.means_first": 0.02, "learning_rates.means_last": 0.02}
    free, *_ = change(scene, teacher, config(LOOSE, steps=25, **rates))
    firm = replace(LOOSE, silhouette=4.0, depth=1.0)
    kept, _, reports = change(scene, teacher, config(firm, steps=25, **rates))
    print(iou(scene, free), iou(scene, kept))
    assert iou(scene, free) < 0.9
    assert iou(scene, kept) > 0.95
    assert set(reports[-1].regularizers) == {"off_silhouette", "off_depth"}
    assert reports[0].regularizers["off_silhouette"] == pytest.approx(0, abs=1e-6)  # it starts where it came from


def test_colours_of_large_areas_are_kept_as_far_as_asked(scene):
    teacher = AnalyticTeacher(recoloured(scene, [0.1, 0.2, 0.9]), RESOLUTION)
    loose, *_ = change(scene, teacher, config(replace(LOOSE, change="colours"), steps=30))
    firm, *_ = change(scene, teacher, config(replace(LOOSE, change="colours", colours=4.0), steps=30))
    before = seen(scene).colors
    assert psnr(seen(loose).colors, before) < 17
    assert psnr(seen(firm).colors, before) > 25


def test_the_depth_anchor_reaches_where_the_gaussians_are(scene):
    teacher = AnalyticTeacher(scene, RESOLUTION)
    work = Work.of(scene, replace(LOOSE, depth=1.0))
    state = OptimizationState.create(moved(scene, [0.0, 0.0, 0.03]), PRESETS["starter"].config.learning_rates)
    cfg = config(replace(LOOSE, depth=1.0), steps=1, **{"guidance.weight": 1e-4})
    [report] = optimize(state, teacher, CameraPrompts(), cfg, original=work.original)
    assert 0.003 < report.regularizers["off_depth"] < 0.05
    assert (state.params["means"] - moved(scene, [0.0, 0.0, 0.03]).means).abs().max() > 0


# Stages


def test_colours_change_first_then_sizes_then_positions():
    settings = EditSettings(sizes_from=0.3, positions_from=0.6, position_rate=0.25)
    at = {progress: rate_factors(settings, progress) for progress in (0.0, 0.29, 0.3, 0.59, 0.6, 1.0)}
    assert [at[p]["sh0"] for p in at] == [1.0] * 6
    assert [at[p]["scales"] for p in at] == [0.0, 0.0, 0.25, 0.25, 0.25, 0.25]
    assert [at[p]["means"] for p in at] == [0.0, 0.0, 0.0, 0.0, 0.25, 0.25]
    assert rate_factors(replace(settings, change="shape"), 0.0) == {
        "sh0": 0.0, "shN": 0.0, "scales": 0.25, "opacities": 0.25, "quats": 0.25, "means": 0.25,
    }  # fmt: skip
    assert set(rate_factors(replace(settings, strength=0.0), 1.0).values()) == {0.0}


@pytest.mark.parametrize(("what", "changed"), [("colours", {"sh0"}), ("shape", {"means", "quats", "log_scales"})])
def test_what_is_frozen_stays_to_the_bit_and_gathers_no_moments(scene, what, changed):
    teacher = AnalyticTeacher(recoloured(moved(scene, [0.1, 0.0, 0.0]), [0.1, 0.2, 0.9]), RESOLUTION)
    after, state, _ = change(scene, teacher, config(replace(LOOSE, change=what), steps=3))
    for (name, x), (_, y) in zip(scene.tensors(), after.tensors(), strict=True):
        assert torch.equal(x, y) == (name not in changed and not (what == "shape" and name == "logit_opacities")), name
    frozen = "means" if what == "colours" else "sh0"
    assert not state.optimizers[frozen].state[state.params[frozen]]


def test_strength_is_where_image_to_image_begins(scene):
    teacher = AnalyticTeacher(scene, RESOLUTION)
    for strength, highest in ((0.3, 300), (1.0, 999)):
        cfg = config(replace(LOOSE, strength=strength), steps=12)
        assert (cfg.guidance.t_min, cfg.guidance.t_max) == (21, highest)
        _, _, reports = change(scene, teacher, cfg)
        assert highest / 2 < max(r.t for r in reports) <= highest
    after, _, _ = change(scene, teacher, config(replace(LOOSE, strength=0.0), steps=3))
    assert equal(scene, after)


# What is locked


def test_everything_outside_the_region_stays_to_the_bit(scene):
    teacher = AnalyticTeacher(recoloured(scene, [0.1, 0.2, 0.9]), RESOLUTION)
    free = scene.means[:, 1] > 0.2
    after, state, _ = change(scene, teacher, config(LOOSE, steps=5), free)
    assert equal(scene[~free], after[~free])
    assert not equal(scene[free], after[free])
    assert len(state.params["means"]) == int(free.sum())
    for name, optimizer in state.optimizers.items():  # no moments for what is locked
        moments = optimizer.state[state.params[name]]["exp_avg"]
        assert len(moments) == int(free.sum()), name


def test_density_control_sees_only_what_may_change(scene):
    teacher = AnalyticTeacher(moved(scene, [0.1, 0.0, 0.0]), RESOLUTION)
    free = scene.means[:, 1] > 0.2
    growing = DensityConfig(start=1, stop=40, every=2, grow_gradient=1e-3, reset_every=0, split_scale=0.04)
    after, state, _ = change(scene, teacher, replace(config(LOOSE, steps=6), density=growing), free)
    grown = len(state.params["means"])
    assert grown > free.sum()
    assert len(after) == grown + int((~free).sum())
    assert equal(scene[~free], after[: int((~free).sum())])


def test_a_resumed_edit_equals_one_that_never_stopped(tmp_path, scene):
    teacher = AnalyticTeacher(recoloured(scene, [0.1, 0.2, 0.9]), RESOLUTION)
    cfg, free = config(EditSettings(), steps=8), scene.means[:, 1] > 0.0
    whole, *_ = change(scene, teacher, cfg, free)
    work = Work.of(scene, cfg.edit, free)
    state = OptimizationState.create(work.changing, cfg.learning_rates)
    list(optimize(state, teacher, CameraPrompts(), replace(cfg, steps=4), original=work.original))
    save_state(state, tmp_path / "state.safetensors")
    restored = load_state(tmp_path / "state.safetensors", cfg.learning_rates)
    resumed, *_ = change(scene, teacher, cfg, free, state=restored)
    assert equal(whole, resumed)


def test_nothing_in_the_region_is_refused(scene):
    with pytest.raises(InputError, match="at least one Gaussian"):
        Work.of(scene, EditSettings(), torch.zeros(len(scene), dtype=torch.bool))
    with pytest.raises(InputError, match="focus"):
        Work.of(scene, EditSettings(focus="region"))


def test_an_edit_cleans_nothing_away():
    with pytest.raises(InputError, match=r"cleanup.enabled: expected false"):
        config(EditSettings(), **{"cleanup.enabled": True})


# Delta


class Texts:
    """Conditioning of one prompt: the cameras, and whether the text is sure."""

    def __init__(self, sure=True):
        self.sure = sure

    def at(self, cameras):
        cond = CameraPrompts().at(cameras)
        return cond if self.sure else replace(cond, positive=cond.inversion)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_delta_is_the_difference_of_a_methods_two_gradients(method, scene):
    teacher, made = AnalyticTeacher(scene, 32), method()
    cameras = orbit_cameras([10.0, 200.0], 15.0, 3.6, 0.65, 32)
    pictures = [seen_at(g, cameras) for g in (moved(scene, [0.1, 0.0, 0.0]), scene)]
    z, z0 = (encode_images(p) for p in pictures)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    steps = Timesteps(400, 320)
    target, source = Texts().at(cameras), Texts(sure=False).at(cameras)
    if method.needs_artefacts:
        target, source = (replace(c, artefact=c.inversion) for c in (target, source))
    found = delta(made, teacher, z, z0, noise, steps, target, source)
    apart = [made(teacher, *at, noise, steps, cond).gradient for at, cond in (((z,), target), ((z0,), source))]
    torch.testing.assert_close(found.gradient, apart[0] - apart[1], rtol=1e-4, atol=1e-5)
    assert found.gradient.abs().max() > 0
    nothing = delta(made, teacher, z, z, noise, steps, target, target)
    assert nothing.gradient.abs().max() < 1e-4  # the same picture and words: nothing is to change
    assert found.samples == 2 * made(teacher, z, noise, steps, target).samples


def seen_at(gaussians, cameras):
    with torch.no_grad():
        return render(gaussians, cameras, backgrounds=torch.ones(len(cameras), 3)).colors


def test_both_need_the_same_kind_of_negatives(scene):
    cond = CameraPrompts().at(VIEWS)
    assert len(both(cond, cond).positive) == 16


def test_a_delta_of_equal_words_changes_nothing_that_plain_guidance_would(scene):
    other = AnalyticTeacher(recoloured(scene, [0.1, 0.2, 0.9]), RESOLUTION)
    cfg = config(LOOSE, steps=4)
    plain, *_ = change(scene, other, cfg)
    unchanged, *_ = change(scene, other, cfg, source=CameraPrompts())
    assert (plain.sh0 - scene.sh0).abs().mean() > 0.1
    assert (unchanged.sh0 - scene.sh0).abs().mean() < 0.02


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_step_that_looks_at_depth_compares_depth_with_depth(scene, flip):
    """The same splat and the same words: nothing is to change, whatever is encoded of it."""
    cfg = config(LOOSE, steps=1, depth_share=1.0, **{"guidance.flip": flip, "guidance.cfg": 7.5})
    *_, [report] = change(scene, AnalyticTeacher(recoloured(scene, [0.1, 0.2, 0.9]), RESOLUTION), cfg)
    *_, [delta_of_none] = change(scene, AnalyticTeacher(scene, RESOLUTION), cfg, source=CameraPrompts())
    assert report.depth
    assert delta_of_none.depth
    assert report.gradient_norm > 1.0
    assert delta_of_none.gradient_norm < 1e-3


# Place, size and harmonics


FAR = torch.tensor([4.2e5, -1.3e3, 7.7e4])


def far_away(scene, factor=120.0):
    means = (scene.means.double() * factor + FAR.double()).float()
    return replace(scene, means=means, log_scales=scene.log_scales + torch.tensor(factor).log())


def test_any_place_and_size_comes_before_the_cameras(scene):
    given = far_away(scene)
    placed = Placement.of(given).place(given)
    assert placed.means.norm(dim=1).quantile(0.98) == pytest.approx(0.8, abs=0.02)
    placement = Placement.of(scene)
    assert placement.stays  # it lies well already
    assert equal(placement.place(scene), scene)
    # The picture of the placed splat is that of the near one but for its size.
    near = Placement.of(scene, torch.ones(len(scene), dtype=torch.bool)).place(scene)
    assert psnr(seen(placed).colors, seen(near).colors) > 35


def test_the_way_back_is_exact_for_what_did_not_change(scene):
    given = far_away(scene)
    work = Work.of(given, EditSettings(), up="+z", yaw=30.0)
    assert equal(work.result(work.changing), given)
    changed = work.changing.detach()
    changed.means[:5] += 0.01
    changed.sh0[7] += 0.1
    after = work.result(changed)
    assert torch.equal(after.means[5:], given.means[5:])
    moves = (after.means[:5].double() - given.means[:5].double()).norm(dim=1)
    expected = 0.01 * 3**0.5 / work.placement.factor
    assert moves.tolist() == pytest.approx([expected] * 5, rel=0.05)  # float32 at 4e5 counts in steps of 0.03
    assert [i for i in range(len(given)) if not torch.equal(after.sh0[i], given.sh0[i])] == [7]
    assert torch.equal(after.quats, given.quats)


def test_placing_back_is_the_inverse(scene):
    placement = Placement.of(far_away(scene, 3.0), up="+x", yaw=70.0)
    given = replace(scene, shN=torch.randn(len(scene), 8, 3, generator=torch.Generator().manual_seed(0)))
    back = placement.back(placement.place(given))
    torch.testing.assert_close(back.log_scales, given.log_scales)
    torch.testing.assert_close(back.shN, given.shN, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(back.means.float(), given.means, rtol=1e-3, atol=0.05)


def test_the_cameras_can_go_round_the_region_alone(scene):
    given = far_away(scene)
    free = scene.means[:, 1] > 0.2
    work = Work.of(given, EditSettings(focus="region"), free)
    assert work.changing.means.norm(dim=1).max() < 1.1
    assert work.original.locked.means.norm(dim=1).max() > 1.3


@pytest.mark.parametrize("part", [False, True], ids=["whole", "region"])
def test_harmonics_are_kept_or_flattened_and_said(scene, part):
    shN = torch.randn(len(scene), 3, 3, generator=torch.Generator().manual_seed(0))
    given: Gaussians = replace(scene, shN=shN)
    free = scene.means[:, 1] > 0.2 if part else None
    kept = Work.of(given, EditSettings(), free)
    assert equal(kept.result(kept.changing), given)
    assert "degree 1) are kept" in kept.note
    flat = Work.of(given, EditSettings(harmonics="flatten"), free)
    assert "flattened" in flat.note
    after = flat.result(flat.changing)
    if part:
        assert torch.equal(after.shN[~free], shN[~free])
        assert after.shN[free].abs().max() == 0
    else:
        assert after.shN.shape[1] == 0
    assert Work.of(scene, EditSettings()).note == ""


def test_what_is_frozen_is_not_shaken_by_density_control(scene):
    faint = replace(scene, logit_opacities=torch.full_like(scene.logit_opacities, -7.0))  # which it shakes most
    given = {"density.enabled": True, "density.strategy": "mcmc", "density.start": 100}
    for begins, stays in ((1.0, True), (0.0, False)):
        cfg = config(replace(LOOSE, positions_from=begins), steps=2, **given)
        after, *_ = change(faint, AnalyticTeacher(scene, RESOLUTION), cfg)
        assert torch.equal(after.means, scene.means) is stays


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"density.enabled": True, "edit.change": "colours"}, "density.enabled: expected false with change=colours"),
        ({"density.enabled": True, "edit.strength": 0.0}, "density.enabled: expected false with strength 0"),
        ({"edit.harmonics": "flatten", "edit.change": "shape"}, "edit.harmonics: expected keep with change=shape"),
    ],
)
def test_what_contradicts_a_frozen_part_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        edit_config(PRESETS["starter"], "restyle", given)


def test_less_strength_changes_less(scene):
    """Adam's steps have one length, however little the teacher says."""
    changes = []
    for strength in (0.0, 0.02, 0.1, 0.3):
        after, *_ = change(scene, AnalyticTeacher(recoloured(scene, [0.1, 0.2, 0.9]), RESOLUTION),
                           config(replace(LOOSE, strength=strength), steps=4))  # fmt: skip
        changes.append(float((after.sh0 - scene.sh0).abs().mean()))
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[1] < 0.2 * changes[3]


def test_fewer_steps_shorten_the_order_and_more_do_not_stretch_it():
    lengths = {n: edit_config(PRESETS["starter"], "edit", {"steps": n}).schedule_steps for n in (50, 300, 500)}
    assert lengths == {50: 50, 300: 300, 500: 300}
    asked = edit_config(PRESETS["starter"], "edit", {"steps": 50, "schedule_steps": 200})
    assert (asked.steps, asked.schedule_steps) == (50, 200)


@pytest.mark.parametrize(
    ("edit", "name", "why"),
    [
        (EditSettings(), "edit.patches", "edit.colours is 0"),
        (EditSettings(change="colours"), "edit.silhouette", "edit.change is colours"),
        (EditSettings(change="shape"), "edit.sizes_from", "edit.change is shape"),
        (EditSettings(strength=0.0), "edit.depth", "edit.strength is 0"),
        (EditSettings(sizes_from=0.5, positions_from=0.2), "edit.positions_from", "positions change after"),
    ],
)
def test_settings_of_an_edit_without_effect_are_known(edit, name, why):
    assert unread_edit(edit, [name, "edit.focus"])[name].startswith(why)
    assert unread_edit(EditSettings(colours=1.0), ["edit.patches", "edit.silhouette"]) == {}
    assert unread_edit(EditSettings(), ["edit.strength", "guidance.t_max"]) == {
        "edit.strength": "guidance.t_max is given"
    }
