"""Pixel-by-pixel clipping against brute force and by its properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_core.errors import InputError
from dreamer_core.guidance.clipping import ClipConfig, clip_depth_gradient, clip_pixel_gradient

values = st.floats(-2, 2, allow_nan=False, width=32)
pixels = st.lists(st.tuples(values, values, values), min_size=1, max_size=20)
thresholds = st.floats(0.01, 1.0)


def brute_force(gradient, c):
    out, clipped = [], 0
    for pixel in gradient.reshape(-1, 3).tolist():
        factor = min([1.0] + [c / abs(g) for g in pixel if g != 0])
        clipped += factor < 1
        out.append([g * factor for g in pixel])
    return torch.tensor(out).reshape(gradient.shape), clipped / len(out)


def test_equals_brute_force():
    gradient = torch.randn(2, 9, 7, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    expected, share = brute_force(gradient, 0.05)
    got, got_share = clip_pixel_gradient(gradient, 0.05)
    torch.testing.assert_close(got, expected)
    assert got_share == pytest.approx(share)
    assert 0.1 < share < 1


@settings(max_examples=150, deadline=None)
@given(pixels, thresholds)
def test_no_channel_above_c_direction_kept_untouched_below(rows, c):
    gradient = torch.tensor(rows)
    got, share = clip_pixel_gradient(gradient, c)
    assert got.abs().max() <= c * (1 + 1e-5)
    small = gradient.abs().amax(dim=-1) <= c
    assert torch.equal(got[small], gradient[small])
    assert share == pytest.approx(float((~small).float().mean()))
    cosine = torch.nn.functional.cosine_similarity(got.double(), gradient.double(), dim=-1)
    assert (cosine[gradient.norm(dim=-1) > 1e-3] > 1 - 1e-5).all()
    # What was clipped reaches the threshold exactly.
    assert torch.allclose(got[~small].abs().amax(dim=-1), torch.tensor(c, dtype=torch.float32), rtol=1e-5)


@settings(max_examples=80, deadline=None)
@given(pixels, thresholds)
def test_norm_mode_limits_the_length(rows, c):
    gradient = torch.tensor(rows)
    got, share = clip_pixel_gradient(gradient, c, "norm")
    assert got.norm(dim=-1).max() <= c * (1 + 1e-5)
    assert share == pytest.approx(float((gradient.norm(dim=-1) > c).float().mean()))


def test_off_returns_the_same_gradient():
    gradient = torch.randn(1, 4, 4, 3)
    got, share = clip_pixel_gradient(gradient, 0.05, "off")
    assert got is gradient
    assert share == 0


def test_zero_gradient_stays_zero():
    got, share = clip_pixel_gradient(torch.zeros(1, 2, 2, 3), 0.05)
    assert torch.equal(got, torch.zeros(1, 2, 2, 3))
    assert share == 0


def test_depth_per_pixel_and_global():
    gradient = torch.tensor([[0.004, -0.02], [0.001, 0.0]])
    got, share = clip_depth_gradient(gradient, 0.002, "per_pixel")
    torch.testing.assert_close(got, torch.tensor([[0.002, -0.002], [0.001, 0.0]]))
    assert share == 0.5
    whole, share = clip_depth_gradient(gradient, 0.002, "global")
    torch.testing.assert_close(whole, gradient * 0.1)
    assert share == 0.5
    small, share = clip_depth_gradient(gradient, 1.0, "global")
    torch.testing.assert_close(small, gradient)
    assert share == 0
    assert clip_depth_gradient(gradient, 0.002, "off")[0] is gradient


def test_the_released_code_scales_the_whole_depth_map_by_one_factor():
    """Its smallest factor over all views and pixels, which is the default."""
    gradient = torch.randn(4, 6, 5, 1, generator=torch.Generator().manual_seed(0)) * 0.01
    mode = ClipConfig().depth_mode
    assert mode == "global"
    factors = [min(1.0, 0.002 / abs(g)) for g in gradient.flatten().tolist()]
    got, share = clip_depth_gradient(gradient, 0.002, mode)
    torch.testing.assert_close(got, gradient * min(factors))
    assert share == pytest.approx(sum(f < 1 for f in factors) / len(factors))


def test_ramp_is_linear():
    config = ClipConfig(threshold=0.05, ramp_from=0.25, ramp_steps=100)
    assert [config.threshold_at(i) for i in (0, 50, 100, 1000)] == pytest.approx([0.25, 0.15, 0.05, 0.05])
    assert ClipConfig(threshold=0.05).threshold_at(7) == 0.05
    assert ClipConfig(threshold=0.05, ramp_steps=100).threshold_at(7) == 0.05  # ramp_from 0: no ramp


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        ("clip.threshold", {"threshold": 0.0}),
        ("clip.threshold", {"threshold": math.nan}),
        ("clip.mode", {"mode": "sometimes"}),
        ("clip.depth_mode", {"depth_mode": "sometimes"}),
        ("clip.depth_factor", {"depth_factor": -1.0}),
        ("clip.ramp_from", {"ramp_from": -0.1}),
        ("clip.ramp_steps", {"ramp_steps": -1}),
    ],
)
def test_bad_values_name_the_field(field, kwargs):
    with pytest.raises(InputError) as error:
        ClipConfig(**kwargs)
    assert error.value.field == field
