"""The loop on a teacher known in closed form: convergence, repeatability, resuming, density control, failures."""

from dataclasses import replace

import pytest
import torch
from analytic import AnalyticTeacher, CameraPrompts, drift, psnr, two_colour_object

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import DivergenceError, InputError
from dreamer_core.gaussians import Gaussians
from dreamer_core.guidance import ClipConfig, GuidanceConfig, sample_timesteps
from dreamer_core.guidance.ism import ISM
from dreamer_core.guidance.sds import SDS
from dreamer_core.guidance.tsm import TSM
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import (
    PRESETS,
    BackgroundConfig,
    DensityConfig,
    LearningRates,
    OptimizationState,
    OptimizeConfig,
    load_state,
    loop,
    optimize,
    save_state,
    train_step,
    views,
)
from dreamer_core.optimize.backgrounds import sample_backgrounds
from dreamer_core.optimize.density import scaled_threshold
from dreamer_core.optimize.presets import STARTER_TRAJECTORY
from dreamer_core.optimize.report import PHASES
from dreamer_core.rendering import render

RESOLUTION = 64
UNSEEN = orbit_cameras([22.5 + 45 * i for i in range(8)], 20.0, 3.6, 0.65, RESOLUTION)


@pytest.fixture(scope="module")
def scene():
    return two_colour_object()


@pytest.fixture(scope="module")
def teacher(scene):
    return AnalyticTeacher(scene, RESOLUTION)


def config(method=None, steps=60, **changes):
    starter = STARTER_TRAJECTORY
    guidance = replace(starter.guidance, method=method or TSM(gamma=0.3), warmup_steps=20, offset_noise=0.0)
    base = {
        "steps": steps,
        "schedule_steps": 60,
        "resolution": RESOLUTION,
        "background": BackgroundConfig(white=1.0, black=0.0),
        "guidance": guidance,
    }
    return replace(starter, **{**base, **changes})


def fresh(cfg, count=1500):
    return OptimizationState.create(
        initial_shape("sphere", count, torch.Generator().manual_seed(0)), cfg.learning_rates
    )


def unseen(gaussians):
    with torch.no_grad():
        return render(gaussians, UNSEEN, backgrounds=torch.ones(8, 3)).colors


@pytest.mark.parametrize("method", [TSM(gamma=0.3), ISM(), SDS(cfg=7.5)], ids=lambda method: method.name)
def test_a_sphere_becomes_the_object(method, scene, teacher):
    cfg = config(method)
    state = fresh(cfg)
    target = unseen(scene)
    before = psnr(unseen(state.gaussians), target)
    reports = list(optimize(state, teacher, CameraPrompts(), cfg))
    after = psnr(unseen(state.gaussians), target)
    print(f"{method.name}: {before:.2f} -> {after:.2f} dB")
    assert before < 14
    assert after > 25
    assert [r.step for r in reports] == list(range(60))


def run(cfg, teacher, steps=8, seed=0, state=None):
    cfg = replace(cfg, steps=steps, seed=seed)
    state = state or fresh(cfg, 300)
    reports = list(optimize(state, teacher, CameraPrompts(), cfg))
    return state, reports


def same(a, b):
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a.gaussians.tensors(), b.gaussians.tensors()))


EVERYTHING = {
    "depth_share": 0.4,
    "scale_noise": 0.112,
    "background": BackgroundConfig(),
    "density": DensityConfig(start=2, stop=40, every=3, grow_gradient=1e-2, reset_every=5, split_scale=0.06),
}


def everything(**changes):
    official = PRESETS["official"].config
    cfg = config(**{**EVERYTHING, "regularizers": official.regularizers, **changes})
    return replace(cfg, guidance=replace(cfg.guidance, flip=0.5, offset_noise=0.1))


def test_same_seed_repeats_another_does_not(teacher):
    a, _ = run(everything(), teacher)
    torch.rand(17)  # the global generator plays no part
    b, _ = run(everything(), teacher)
    c, _ = run(everything(), teacher, seed=1)
    assert same(a, b)
    assert not same(a, c)


def test_resumed_and_extended_equal_uninterrupted(tmp_path, teacher):
    cfg = everything()
    whole, _ = run(cfg, teacher, steps=12)
    part, _ = run(cfg, teacher, steps=7)
    save_state(part, tmp_path / "state.safetensors", {"fingerprint": "x"})
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    restored = load_state(tmp_path / "state.safetensors", cfg.learning_rates)
    assert restored.step == 7
    resumed, reports = run(cfg, teacher, steps=12, state=restored)
    assert [r.step for r in reports] == [7, 8, 9, 10, 11]
    assert len(resumed.params["means"]) != 300  # density control took part
    assert same(whole, resumed)


def test_state_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="expected a saved run"):
        load_state(tmp_path / "x", LearningRates())


def test_encoding_twice_gives_the_same_gradient(teacher):
    cfg = everything(density=DensityConfig(enabled=False))
    a, ra = run(cfg, teacher, steps=4)
    b, rb = run(replace(cfg, recompute_encoder=True), teacher, steps=4)
    assert drift(a.params.values(), b.params.values()) < 1e-4
    assert ra[0].gradient_norm == pytest.approx(rb[0].gradient_norm, rel=1e-4)


def test_reports_tell_what_happened(teacher):
    cfg = everything(density=DensityConfig(enabled=False))
    _, reports = run(cfg, teacher, steps=10)
    assert any(r.depth for r in reports)
    assert not all(r.depth for r in reports)
    for r in reports:
        assert tuple(r.seconds) == PHASES
        assert 0 <= r.clipped <= 1
        assert r.gradient_norm > 0
        delta = int(80 + max(1 - r.step / 20, 0) * 20)  # the warm-up takes 20 steps here
        assert r.s == max(r.t - delta, 1)
        inversions = len(range(1, r.s, 200))
        assert r.network_evaluations == 4 + inversions
        assert r.network_calls == 2 + inversions
        assert r.nonfinite == 0


def test_clipping_limits_what_reaches_the_gaussians(teacher):
    free = config(clip=replace(STARTER_TRAJECTORY.clip, mode="off"))
    tight = config(clip=replace(STARTER_TRAJECTORY.clip, threshold=1e-4))
    _, (a, *_) = run(free, teacher, steps=1)
    _, (b, *_) = run(tight, teacher, steps=1)
    assert a.clipped == 0
    assert b.clipped > 0.3
    assert a.image_gradient_norm == pytest.approx(b.image_gradient_norm, rel=1e-4)


class Spy:
    """What passes between the loop and its renderer and teacher in one step."""

    def __init__(self, teacher, cfg, monkeypatch, step=0, scene=None):
        self.encoded, self.depth_gradient, self.color_gradients = [], [], {}
        self.scenes, self.cameras, self.outputs = [], [], []
        """One of each per render: one per step, or one per view where scales are noisy."""
        self.state = fresh(cfg, 300) if scene is None else OptimizationState.create(scene, cfg.learning_rates)
        self.state.step = step
        self.before = {name: p.detach().clone() for name, p in self.state.params.items()}
        self.parameter_gradients = {}
        plain_render, plain_encode = views.render, teacher.encode

        def spying_render(gaussians, cameras, **kwargs):
            self.render_options = kwargs
            output = plain_render(gaussians, cameras, **kwargs)
            self.scenes.append(gaussians.detach())
            self.cameras.append(cameras)
            self.outputs.append(output)
            index = len(self.outputs) - 1
            output.colors.register_hook(lambda g: self.color_gradients.update({index: g}))
            if output.depth_sums is not None:
                output.depth_sums.register_hook(lambda g: self.depth_gradient.append(g.clone()))
            return output

        def spying_encode(images):
            self.encoded.append(images.detach().clone())
            return plain_encode(images)

        for name, p in self.state.params.items():
            if p.requires_grad:
                p.register_hook(lambda g, name=name: self.parameter_gradients.update({name: g.clone()}))
        with monkeypatch.context() as patch:
            patch.setattr(views, "render", spying_render)
            patch.setattr(teacher, "encode", spying_encode)
            self.report = train_step(self.state, teacher, CameraPrompts(), cfg)

    @property
    def color_gradient(self):
        """Of every render that one reached, in their order."""
        return [self.color_gradients[i] for i in sorted(self.color_gradients) if self.color_gradients[i] is not None]

    @property
    def output(self):
        (output,) = self.outputs
        return output


def only(**changes):
    """A step without regularisers and density control, but for the changes."""
    return config(**{"density": DensityConfig(enabled=False), "scale_noise": 0.0, **changes})


def test_a_step_is_guided_by_the_scale_of_its_time(teacher, monkeypatch):
    scales, plain = [], teacher.combine

    def spying_combine(*args):
        scales.append(args[-1])
        return plain(*args)

    monkeypatch.setattr(teacher, "combine", spying_combine)
    cfg = only(guidance=replace(config().guidance, method=SDS(cfg=5.0), cfg_fade=0.75))
    for step in (0, 30, 60, 90):
        Spy(teacher, cfg, monkeypatch, step=step)
    assert scales == pytest.approx([5.0, 3.5, 2.0, 2.0])


def test_what_reaches_the_image_is_the_clipped_gradient(teacher, monkeypatch):
    clip = replace(STARTER_TRAJECTORY.clip, threshold=0.01)
    spy = Spy(teacher, only(clip=clip), monkeypatch)
    (gradient,) = spy.color_gradient
    size = gradient.abs().amax(dim=-1)
    assert size.max() == pytest.approx(0.01, rel=1e-4)
    assert spy.report.clipped == pytest.approx(float((size > 0.01 * (1 - 1e-4)).float().mean()), abs=0.01)
    assert 0.1 < spy.report.clipped < 1


def test_depth_steps_encode_disparity_and_clip_it(teacher, monkeypatch):
    captured = []
    plain = loop.clip_depth_gradient

    def spying(gradient, limit, mode):
        captured.append((gradient, float(limit), plain(gradient, limit, mode)))
        return captured[-1][2]

    monkeypatch.setattr(loop, "clip_depth_gradient", spying)
    spy = Spy(teacher, only(depth_share=1.0), monkeypatch)
    (images,) = spy.encoded
    assert spy.report.depth
    assert torch.equal(images[..., 0], images[..., 2])  # three copies of one map
    assert images.min() >= 0
    assert images.max() == pytest.approx(1.0, abs=1e-4)
    gradient, limit, (clipped, share) = captured[0]
    assert limit == pytest.approx(0.01 * float(spy.before["scales"].exp().mean()), rel=1e-4)
    assert clipped.abs().max() <= limit * (1 + 1e-5) < gradient.abs().max()
    assert spy.report.clipped == pytest.approx(float(share))
    assert spy.color_gradient == []  # colours take no part in such a step
    assert spy.render_options["depth_gradient"] is False
    assert spy.depth_gradient[0].abs().max() > 0  # the map's gradient goes on into the weights


@pytest.mark.parametrize("mode", ["per_pixel", "global"])
def test_depth_clipping_is_per_pixel_or_global(teacher, monkeypatch, mode):
    passed, plain = [], loop.clip_depth_gradient
    monkeypatch.setattr(
        loop, "clip_depth_gradient", lambda g, *rest: passed.append((g, plain(g, *rest)[0])) or plain(g, *rest)
    )
    clip = replace(STARTER_TRAJECTORY.clip, depth_mode=mode)
    Spy(teacher, only(depth_share=1.0, clip=clip), monkeypatch)
    before, after = passed[0]
    factors = (after / before)[before != 0]
    assert factors.max() <= 1 + 1e-5
    assert factors.min() < 0.9
    assert (factors.max() - factors.min() < 1e-4) == (mode == "global")


def test_a_fifth_of_the_steps_looks_at_depth(teacher, monkeypatch):
    """The published share, over many steps: a run whose rendering is left out."""
    depths = []

    def stop(*args, depth, **kwargs):
        depths.append(depth)
        raise KeyboardInterrupt

    monkeypatch.setattr(views, "render", stop)
    cfg = only(depth_share=0.2)
    state = fresh(cfg, 300)
    for step in range(1000):
        state.step = step
        with pytest.raises(KeyboardInterrupt):
            train_step(state, teacher, CameraPrompts(), cfg)
    assert sum(depths) / 1000 == pytest.approx(0.2, abs=0.03)


def test_a_flipped_batch_is_mirrored_left_to_right(teacher, monkeypatch):
    guidance = replace(config().guidance, flip=1.0)
    spy = Spy(teacher, only(guidance=guidance), monkeypatch)
    assert torch.equal(spy.encoded[0], spy.output.colors.detach().flip(2))
    plain = Spy(teacher, only(), monkeypatch)
    assert torch.equal(plain.encoded[0], plain.output.colors.detach())


def test_steps_of_a_pool_share_a_field_of_view(teacher, monkeypatch):
    cfg = only(views=2)
    cfg = replace(cfg, cameras=replace(cfg.cameras, fov=(20.0, 50.0), fov_pool=4))
    drawn = [views.draw_views(cfg, step, torch.device("cpu")).cameras.fov.unique().tolist() for step in range(6)]
    assert all(len(d) == 1 for d in drawn)
    assert drawn[0] == drawn[1] == drawn[2] == drawn[3] != drawn[4] == drawn[5]


def test_ten_views_share_a_field_of_view_across_steps():
    cfg = replace(PRESETS["official"].config, resolution=64)
    degrees = [views.draw_views(cfg, step, torch.device("cpu")).cameras.fov.rad2deg() for step in range(10)]
    pools = torch.cat(degrees).split(10)
    assert [len(set(pool.tolist())) for pool in pools] == [1] * 4
    assert len({float(pool[0]) for pool in pools}) == 4
    low, high = cfg.cameras.fov
    assert all(low <= float(pool[0]) <= high for pool in pools)
    again = views.draw_views(cfg, 2, torch.device("cpu")).cameras.fov.rad2deg()  # as a resumed run draws it
    assert torch.equal(again, degrees[2])
    another = views.draw_views(replace(cfg, seed=1), 2, torch.device("cpu")).cameras.fov.rad2deg()
    assert not torch.equal(again, another)


def test_scale_noise_has_the_configured_spread(scene):
    (noisy,) = views.noisy_scales(scene, 0.112, 1, torch.Generator().manual_seed(0))
    factor = noisy.scales / scene.scales - 1
    assert factor.mean() == pytest.approx(0.0, abs=0.005)
    assert factor.std() == pytest.approx(0.112, abs=0.005)
    assert torch.equal(noisy.means, scene.means)


def test_every_view_sees_scales_of_its_own(teacher, monkeypatch):
    spy = Spy(teacher, only(views=3, scale_noise=0.112), monkeypatch)
    assert [len(c) for c in spy.cameras] == [1, 1, 1]
    factors = torch.stack([s.scales / spy.before["scales"].exp() - 1 for s in spy.scenes])
    assert factors.std(dim=(1, 2)).tolist() == pytest.approx([0.112] * 3, rel=0.1)
    correlation = torch.corrcoef(factors.flatten(1)) - torch.eye(3)
    assert correlation.abs().max() < 0.15
    one = Spy(teacher, only(views=3, scale_noise=0.0), monkeypatch)
    assert [len(c) for c in one.cameras] == [3]
    assert torch.equal(one.scenes[0].log_scales, one.before["scales"])


def test_views_rendered_one_by_one_are_those_rendered_together(teacher, monkeypatch):
    """Noise so weak that it changes nothing: the same pictures, gradients and density statistics."""
    growing = DensityConfig(start=50, stop=100, reset_every=0)
    weights = PRESETS["official"].config.regularizers
    for depth_share in (0.0, 1.0):
        cfg = config(views=3, depth_share=depth_share, density=growing, regularizers=weights)
        whole = Spy(teacher, cfg, monkeypatch)
        apart = Spy(teacher, replace(cfg, scale_noise=1e-12), monkeypatch)
        assert (len(whole.outputs), len(apart.outputs)) == (1, 3)
        torch.testing.assert_close(apart.encoded[0], whole.encoded[0], rtol=1e-4, atol=1e-5)
        for name, gradient in whole.parameter_gradients.items():
            torch.testing.assert_close(apart.parameter_gradients[name], gradient, rtol=1e-2, atol=1e-5, msg=name)
        assert whole.state.density["count"].max() == 3
        assert torch.equal(apart.state.density["count"], whole.state.density["count"])
        torch.testing.assert_close(apart.state.density["grad2d"], whole.state.density["grad2d"], rtol=1e-2, atol=1e-5)


def bright():
    """A ball so bright that its renders exceed 1, in front of white."""
    ball = initial_shape("sphere", 400, torch.Generator().manual_seed(0), opacity=0.9)
    rgb = torch.tensor([1.6, 0.5, 0.2]).expand(400, 3)
    return Gaussians.from_activated(
        means=ball.means, quats=ball.quats, scales=ball.scales, opacities=ball.opacities, rgb=rgb
    )


@pytest.mark.parametrize("scale_noise", [0.0, 0.112])
def test_images_are_cut_off_at_1_and_have_no_gradient_there(teacher, monkeypatch, scale_noise):
    weights = replace(STARTER_TRAJECTORY.regularizers, tv_rgb=1.0)
    cfg = only(regularizers=weights, scale_noise=scale_noise, clip=ClipConfig(mode="off"))
    spy = Spy(teacher, cfg, monkeypatch, scene=bright())
    rendered = torch.cat([o.colors.detach() for o in spy.outputs])
    assert (rendered > 1).float().mean() > 0.02
    assert torch.equal(spy.encoded[0], rendered.clamp(0, 1))
    gradient, over = torch.cat(spy.color_gradient), rendered > 1
    assert gradient[over].abs().max() == 0
    assert gradient[rendered < 0.99].count_nonzero() > 100
    # Total variation, the only regulariser here, sees what is encoded, too.
    pictures = rendered.clamp(0, 1)
    steps = [pictures.diff(dim=dim).square().mean() for dim in (1, 2)]
    assert spy.report.regularizers["tv_rgb"] == pytest.approx(2 * float(sum(steps)), rel=1e-4)


def test_density_statistics_count_every_view(teacher, monkeypatch):
    cfg = config(views=3, density=DensityConfig(start=50, stop=100, reset_every=0))
    spy = Spy(teacher, cfg, monkeypatch)  # its scales are not noisy: one render
    seen = (spy.output.info["radii"] > 0).all(dim=-1)
    torch.testing.assert_close(spy.state.density["count"], seen.sum(dim=0).float())
    gradients = spy.output.info["means2d"].grad * RESOLUTION / 2  # in normalised device coordinates, not times views
    expected = (gradients.norm(dim=-1) * seen).sum(dim=0)
    torch.testing.assert_close(spy.state.density["grad2d"], expected, rtol=1e-4, atol=1e-6)


def test_regularisers_pull_on_the_parameters(teacher, monkeypatch):
    plain = Spy(teacher, only(), monkeypatch).parameter_gradients
    weights = replace(STARTER_TRAJECTORY.regularizers, scale=5.0)
    spy = Spy(teacher, only(regularizers=weights), monkeypatch)
    pull = spy.parameter_gradients["scales"] - plain["scales"]
    scales = spy.before["scales"].exp()
    torch.testing.assert_close(pull, 5.0 * scales / scales.numel(), rtol=1e-2, atol=1e-6)
    assert spy.report.regularizers == {"scale": pytest.approx(5.0 * float(scales.mean()), rel=1e-4)}


def test_total_variation_enters_before_clipping(teacher, monkeypatch):
    clip = replace(STARTER_TRAJECTORY.clip, threshold=1e-4)
    weights = replace(STARTER_TRAJECTORY.regularizers, tv_rgb=1e3)
    spy = Spy(teacher, only(clip=clip, regularizers=weights), monkeypatch)
    assert spy.color_gradient[0].abs().max() <= 1e-4 * (1 + 1e-4)
    assert spy.report.regularizers["tv_rgb"] > 0


def test_an_interrupted_update_is_marked(teacher, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    cfg = config()
    state = fresh(cfg, 300)
    monkeypatch.setattr(loop.density, "refine", stop)
    with pytest.raises(KeyboardInterrupt):
        train_step(state, teacher, CameraPrompts(), cfg)
    assert state.updating
    monkeypatch.undo()
    state = fresh(cfg, 300)
    train_step(state, teacher, CameraPrompts(), cfg)
    assert not state.updating


def test_timesteps_widen_during_warm_up():
    guidance = GuidanceConfig()
    early = [sample_timesteps(guidance, 0, torch.Generator().manual_seed(i)) for i in range(500)]
    late = [sample_timesteps(guidance, 750, torch.Generator().manual_seed(i)) for i in range(500)]
    assert 900 < max(x.t for x in early) <= 980
    assert 450 < max(x.t for x in late) <= 500
    assert min(x.t for x in early + late) >= 21
    assert {x.t - x.s for x in early if x.s > 1} == {100}
    assert {x.t - x.s for x in late if x.s > 1} == {80}
    assert min(x.s for x in early + late) == 1
    assert all(x.t <= 101 for x in early if x.s == 1)
    assert all(x.t <= 81 for x in late if x.s == 1)
    assert {(x.t_min, x.stride) for x in early} == {(21, 200)}


@pytest.mark.parametrize(("delta", "widening"), [(80, 20), (250, -150), (10, -9), (80, 0)])
def test_delta_moves_during_the_warm_up_in_whole_timesteps(delta, widening):
    """int(delta + w widening) as one number; batman's configuration goes from 100 to 250."""
    guidance = GuidanceConfig(t_min=999, t_max=999, delta=delta, delta_widening=widening, warmup_steps=750)
    for step in (0, 1, 5, 374, 375, 749, 750, 2000):
        times = sample_timesteps(guidance, step, torch.Generator())
        assert 999 - times.s == int(delta + (1 - min(step / 750, 1)) * widening)
    assert 999 - sample_timesteps(guidance, 0, torch.Generator()).s == delta + widening


def test_background_mix():
    colors = sample_backgrounds(BackgroundConfig(), 6000, torch.Generator().manual_seed(0))
    white, black = (colors == 1).all(dim=1).float().mean(), (colors == 0).all(dim=1).float().mean()
    assert white == pytest.approx(0.34, abs=0.02)
    assert black == pytest.approx(0.33, abs=0.02)
    assert colors[(colors > 0).all(dim=1) & (colors < 1).all(dim=1)].mean() == pytest.approx(0.5, abs=0.02)


def test_learning_rates_are_log_linear_and_hold_at_the_end():
    rates = LearningRates()
    assert rates.at("means", 0, 2500) == pytest.approx(5.6e-4)
    assert rates.at("means", 1250, 2500) == pytest.approx(5.6e-5)
    assert rates.at("means", 9999, 2500) == pytest.approx(5.6e-6)


# Density control (gsplat's DefaultStrategy).


def grow(teacher, steps=26, **changes):
    settings = {"start": 5, "stop": 100, "every": 5, "grow_gradient": 5.0, "reset_every": 0, "split_scale": 0.06}
    cfg = config(density=DensityConfig(**{**settings, **changes}))
    return run(cfg, teacher, steps=steps)


def test_gaussians_are_cloned_and_split(teacher):
    state, reports = grow(teacher)
    counts = [r.gaussians for r in reports]
    assert counts[9] == 300  # gsplat refines strictly after `start`: first at step 10
    assert counts[-1] > 320
    for name, optimizer in state.optimizers.items():
        (parameter,) = optimizer.param_groups[0]["params"]
        assert parameter is state.params[name]
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_splitting_makes_smaller_gaussians_and_cloning_keeps_them(teacher):
    split, _ = grow(teacher, steps=11, split_scale=1e-5)
    clone, _ = grow(teacher, steps=11, split_scale=1e4)
    assert len(split.params["means"]) > 300
    assert len(clone.params["means"]) > 300
    assert split.gaussians.scales.min() < 0.75 * clone.gaussians.scales.min()


def test_the_cap_is_never_exceeded(teacher):
    _, reports = grow(teacher, grow_gradient=1e-3, max_gaussians=350)
    assert max(r.gaussians for r in reports) == 350


def test_transparent_gaussians_are_pruned(teacher):
    cfg = config(density=DensityConfig(start=2, stop=100, every=4, grow_gradient=1e9, prune_opacity=0.1))
    state, reports = run(cfg, teacher, steps=12)
    assert reports[-1].gaussians < 300
    assert len(state.params["opacities"]) == reports[-1].gaussians


def test_opacities_are_reset_although_gsplat_forgets(teacher):
    cfg = config(density=DensityConfig(start=1000, stop=2000, reset_every=6, prune_opacity=0.005))
    state, _ = run(cfg, teacher, steps=7)
    assert state.gaussians.opacities.max() <= 0.0101
    state, _ = run(cfg, teacher, steps=6)
    assert state.gaussians.opacities.max() > 0.05


def test_removing_everything_stops_with_the_reason(teacher):
    cfg = config(density=DensityConfig(start=0, stop=100, every=2, grow_gradient=1e9, prune_opacity=0.9))
    with pytest.raises(DivergenceError, match="removed every Gaussian"):
        run(cfg, teacher, steps=12)


def test_mcmc_adds_up_to_the_cap_and_repeats(teacher):
    density = DensityConfig(strategy="mcmc", start=1, stop=100, every=2, max_gaussians=340, noise=1.0)
    state, reports = run(config(density=density), teacher, steps=12)
    assert reports[1].gaussians == 300
    assert [r.gaussians for r in reports][-1] == 340
    assert state.gaussians.check_finite() is None
    again, _ = run(config(density=density), teacher, steps=12)
    assert same(state, again)


def test_threshold_follows_the_square_of_the_resolution():
    density = DensityConfig()
    assert scaled_threshold(density, 1024) == pytest.approx(7.5e-4)
    assert scaled_threshold(density, 512) == pytest.approx(7.5e-4 / 4)


# Failures.


class Broken(AnalyticTeacher):
    """NaN in some elements of the prediction, in every step or only in some."""

    bad_calls: frozenset[int] | None = None

    def eps(self, x, sigma, cond):
        out = super().eps(x, sigma, cond)
        if self.bad_calls is None or len(self.calls) in self.bad_calls:
            out[:, 0, 0, 0] = float("nan")
        return out


def test_ten_bad_steps_in_a_row_stop_the_run(scene):
    teacher = Broken(scene, RESOLUTION)
    cfg = config(steps=50)
    state = fresh(cfg, 300)
    run_of_steps = optimize(state, teacher, CameraPrompts(), cfg)
    assert all(next(run_of_steps).nonfinite > 0 for _ in range(10))
    with pytest.raises(DivergenceError, match=r"10 steps in a row had NaN or inf .* run the VAE in float32"):
        next(run_of_steps)
    assert state.gaussians.check_finite() is None


def test_a_single_bad_step_is_counted_and_survived(scene):
    teacher = Broken(scene, RESOLUTION)
    teacher.bad_calls = frozenset({1, 2, 3})
    state, reports = run(config(), teacher, steps=8)
    assert reports[0].nonfinite > 0
    assert reports[-1].nonfinite == 0
    assert state.bad_steps == 0
    assert state.gaussians.check_finite() is None


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        ("resolution", {"resolution": 1000}),
        ("resolution", {"resolution": 0}),
        ("steps", {"steps": 0}),
        ("views", {"views": 0}),
        ("depth_share", {"depth_share": 1.5}),
        ("scale_noise", {"scale_noise": -0.1}),
        ("schedule_steps", {"schedule_steps": 0}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**64}),
        ("memory", {"memory": "much"}),
    ],
)
def test_bad_configuration_names_the_field(field, kwargs):
    with pytest.raises(InputError) as error:
        OptimizeConfig(**kwargs)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        ("t_min", {"t_min": 501}),
        ("t_min", {"t_min": 0}),
        ("t_max", {"t_max": 1000}),
        ("method", {"method": "tsm"}),
        ("flip", {"flip": 2.0}),
        ("offset_noise", {"offset_noise": -0.1}),
        ("delta", {"delta": 0}),
        ("delta_widening", {"delta": 80, "delta_widening": -80}),
        ("stride", {"stride": 0}),
        ("weight", {"weight": float("nan")}),
    ],
)
def test_bad_guidance_names_the_field(field, kwargs):
    with pytest.raises(InputError) as error:
        replace(PRESETS["official"].config.guidance, **kwargs)
    assert error.value.field == f"guidance.{field}"


@pytest.mark.parametrize(("shape", "count"), [("cone", 100), ("sphere", 3)])
def test_bad_initial_shape(shape, count):
    with pytest.raises(InputError):
        initial_shape(shape, count, torch.Generator())


def test_initial_shapes_fill_their_volume():
    g = lambda: torch.Generator().manual_seed(0)
    sphere, box = initial_shape("sphere", 4000, g(), size=0.5), initial_shape("box", 4000, g(), size=0.5)
    radius = sphere.means.norm(dim=1)
    assert radius.max() <= 0.5
    assert radius.mean() == pytest.approx(0.375, abs=0.01)  # 3/4 of the radius
    assert box.means.abs().max() <= 0.5
    assert box.means.var(dim=0).tolist() == pytest.approx([1 / 12] * 3, rel=0.05)
    torch.testing.assert_close(sphere.opacities, torch.full((4000,), 0.1))
    torch.testing.assert_close(sphere.rgb, torch.full((4000, 3), 0.5))
    # 3DGS's initial scale: root mean square distance to the three nearest neighbours, here by brute force.
    distance = torch.cdist(sphere.means, sphere.means).fill_diagonal_(9).topk(3, dim=1, largest=False).values
    torch.testing.assert_close(sphere.scales[:, 0], distance.square().mean(dim=1).sqrt(), rtol=1e-3, atol=1e-4)
