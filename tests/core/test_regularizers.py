"""Total variation and the disparity of depth steps."""

import math
from dataclasses import fields

import pytest
import torch

from dreamer_core.cli.run_folder import row
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import RegularizerConfig, StepReport
from dreamer_core.optimize.regularizers import TERMS, normalized_disparity, scene_terms, total_variation


def test_total_variation_of_a_ramp():
    image = torch.arange(5.0)[None, None, :, None].expand(1, 4, 5, 3)
    assert total_variation(image) == pytest.approx(2.0)
    assert total_variation(torch.full((1, 4, 5, 3), 0.3)) == 0


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (2, 5, 9, 1), (1, 17, 3, 3)])
def test_total_variation_is_twice_the_mean_squares(shape):
    """As the released code counts: 2 (sum_v / count_v + sum_h / count_h) / batch, on [B, C, H, W]."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch, height, width, channels = shape
    vertical = horizontal = 0.0
    for image in images.tolist():
        for y in range(height):
            for x in range(width):
                for c in range(channels):
                    if y:
                        vertical += (image[y][x][c] - image[y - 1][x][c]) ** 2
                    if x:
                        horizontal += (image[y][x][c] - image[y][x - 1][c]) ** 2
    counts = channels * (height - 1) * width, channels * height * (width - 1)
    expected = 2 * (vertical / counts[0] + horizontal / counts[1]) / batch
    assert float(total_variation(images)) == pytest.approx(expected, rel=1e-12)


def test_disparity_is_the_published_formula():
    fov = torch.tensor([0.6])
    depth = torch.tensor([2.0, 4.0, 0.0])
    alpha = torch.tensor([1.0, 1.0, 0.0])
    got = normalized_disparity((depth * alpha).view(1, 1, 3, 1), alpha.view(1, 1, 3, 1), fov).flatten()
    f = 1 / (2 * math.tan(0.3))
    raw = [f / (2 + 1e-5), f / (4 + 1e-5), f / (10 + 1e-5)]
    # The background lies below the minimum over solid pixels and is clamped to 0.
    expected = [(v - raw[1]) / (raw[0] - raw[1]) for v in raw]
    assert got.tolist() == pytest.approx([expected[0], expected[1], 0.0], abs=1e-5)


def test_every_weight_has_its_column_in_the_metrics():
    """Each term that the loop reports ends in metrics.csv, with the value of the report."""
    names = {f.name for f in fields(RegularizerConfig)} - {"max_anisotropy"}
    assert set(TERMS) == names
    scene = initial_shape("sphere", 20, torch.Generator().manual_seed(0))
    everything = RegularizerConfig(**dict.fromkeys(names, 1.0))
    assert set(scene_terms(scene, everything)) == names - {"tv_rgb", "tv_disparity"}
    values = {name: float(i) for i, name in enumerate(sorted(names), 1)}
    report = StepReport(
        step=0, t=1, s=0, gradient_norm=0.0, image_gradient_norm=0.0, clipped=0.0, gaussians=20, depth=False,
        nonfinite=0, regularizers=values, network_calls=0, network_evaluations=0, seconds={}, memory=0,
    )  # fmt: skip
    found = row(report)
    assert {name: found[name] for name in names} == values


def test_an_empty_view_has_no_nan():
    got = normalized_disparity(torch.zeros(2, 4, 4, 1), torch.zeros(2, 4, 4, 1), torch.tensor([0.5, 0.6]))
    assert torch.isfinite(got).all()
    assert got.abs().max() == 0
