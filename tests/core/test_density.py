"""Thresholds that mean the same at any resolution and with any number of views, and the gradient of depth maps."""

from dataclasses import replace

import pytest
import torch
from test_loop import config, fresh

from dreamer_core.cameras import orbit_cameras
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import DensityConfig, density
from dreamer_core.optimize.density import scaled_threshold
from dreamer_core.optimize.regularizers import normalized_disparity
from dreamer_core.rendering import render


def pattern(azimuth, height, width):
    """What a teacher wants changed per pixel: as strong at any resolution, and another for every direction."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    wave = torch.sin(9 * x + azimuth / 40) * torch.cos(7 * y - azimuth / 70)
    return 0.05 * wave[..., None].expand(height, width, 3)


def statistics(resolution, azimuths, per_render=None):
    """Mean 2D gradient per Gaussian as the strategy keeps it, over the threshold, after one step.

    `per_render` views are rendered at a time, by default all.
    """
    cfg = DensityConfig(start=50, stop=100, reset_every=0)
    state = fresh(config(), 300)
    size, gaussians = per_render or len(azimuths), state.gaussians
    groups = [azimuths[i : i + size] for i in range(0, len(azimuths), size)]
    outputs = [
        render(gaussians, orbit_cameras(g, 10.0, 4.0, 0.6, resolution), backgrounds=torch.ones(len(g), 3))
        for g in groups
    ]
    infos = [output.info for output in outputs]
    density.retain_gradients(infos)
    wanted = [torch.stack([pattern(a, resolution, resolution) for a in group]) for group in groups]
    torch.autograd.backward([output.colors for output in outputs], wanted)
    density.refine(state.params, state.optimizers, state.density, 1, infos, cfg, 0.0)
    mean = state.density["grad2d"] / state.density["count"].clamp_min(1)
    return mean / scaled_threshold(cfg, resolution)


def test_the_resolution_does_not_change_which_gaussians_grow():
    small, large = statistics(128, [20.0]), statistics(256, [20.0])
    assert float((large / small).median()) == pytest.approx(1.0, abs=0.1)
    assert torch.corrcoef(torch.stack([small, large]))[0, 1] > 0.98


def test_the_number_of_views_does_not_change_which_gaussians_grow():
    views = [20.0, 110.0, 200.0]
    each = torch.stack([statistics(64, [a]) for a in views])
    torch.testing.assert_close(statistics(64, views), each.mean(dim=0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(statistics(64, [20.0] * 4), each[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("per_render", [1, 2])
def test_several_renders_count_as_one_of_all_views(per_render):
    views = [20.0, 110.0, 200.0]
    together = statistics(64, views)
    assert (together > 0).sum() > 100
    torch.testing.assert_close(statistics(64, views, per_render), together, rtol=1e-5, atol=1e-7)


def test_a_render_that_nothing_reached_counts_its_views_with_gradient_zero():
    state = fresh(config(), 300)
    cameras = [orbit_cameras([azimuth], 10.0, 4.0, 0.6, 64) for azimuth in (20.0, 110.0)]
    gaussians = state.gaussians
    outputs = [render(gaussians, c, backgrounds=torch.ones(1, 3)) for c in cameras]
    infos = [output.info for output in outputs]
    density.retain_gradients(infos)
    outputs[0].colors.backward(pattern(20.0, 64, 64)[None])
    cfg = DensityConfig(start=50, stop=100, reset_every=0)
    density.refine(state.params, state.optimizers, state.density, 1, infos, cfg, 0.0)
    seen = sum((info["radii"] > 0).all(dim=-1).sum(dim=0) for info in infos)
    torch.testing.assert_close(state.density["count"], seen.float())


def test_large_gaussians_are_pruned_after_the_first_reset_or_without_any():
    def left(step, reset_every=20):
        cfg = DensityConfig(start=0, stop=1000, every=10, reset_every=reset_every, grow_gradient=1e9, prune_scale=0.35)
        state = fresh(config(), 100)
        with torch.no_grad():
            state.params["scales"][:7] = torch.tensor(0.36).log()
            state.params["scales"][7:] = torch.tensor(0.34).log()
        output = render(state.gaussians, orbit_cameras([0.0], 0.0, 4.0, 0.6, 64))
        density.retain_gradients([output.info])
        output.colors.sum().backward()
        for optimizer in state.optimizers.values():
            optimizer.param_groups[0]["lr"] = 0.0
            optimizer.step()  # makes the moments that pruning cuts, too
        density.refine(state.params, state.optimizers, state.density, step, [output.info], cfg, 0.0)
        return len(state.params["means"])

    assert left(10) == 100
    assert left(30) == 93
    assert left(10, reset_every=0) == 93


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_depth_maps_do_not_move_gaussians_along_the_view(backend):
    """Only weights and positions in the image feel the disparity; with `depth_gradient` z would, too."""

    def along(depth_gradient):
        scene = initial_shape("sphere", 60, torch.Generator().manual_seed(0), opacity=0.5)
        # One far camera: the view direction is the same for all, and moving along it does not change the image.
        cameras = orbit_cameras([0.0], 0.0, 400.0, 0.006, 48)
        means = scene.means.clone().requires_grad_()
        moved = replace(scene, means=means)
        out = render(moved, cameras, depth=True, depth_gradient=depth_gradient, backend=backend)
        near = replace(out, depth_sums=out.depth_sums - 399.0 * out.alphas)  # distances of a unit, not of 400
        weight = torch.linspace(0, 1, 48 * 48).reshape(1, 48, 48, 1)
        (normalized_disparity(near.depth_sums, out.alphas, torch.tensor([0.6])) * weight).sum().backward()
        return means.grad[:, 2].abs().max(), means.grad[:, :2].abs().max()

    z, xy = along(False)
    z_with, _ = along(True)
    assert xy > 0
    assert z < 1e-2 * xy
    assert z_with > 10 * z
