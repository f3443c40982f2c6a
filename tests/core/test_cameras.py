"""Frames, orbits and the training distribution."""

import math

import pytest
import torch

from dreamer_core.cameras import look_at, orbit_cameras, turntable, wrap_degrees
from dreamer_core.errors import InputError
from dreamer_core.orbit import CAMERA_PRESETS, OrbitConfig, pooled_fov, sample_orbit, with_angles


def project(cameras, point):
    """Pixel and depth of a world point in every camera."""
    p = torch.tensor([*point, 1.0])
    local = (cameras.viewmats @ p)[:, :3]
    pixel = (cameras.Ks @ local[..., None])[..., 0]
    return pixel[:, :2] / pixel[:, 2:], local[:, 2]


@pytest.mark.parametrize(
    ("azimuth", "point", "right", "up"),
    [
        (0, (0.5, 0, 0), 1, 0),  # from the front, world +X is on the right
        (0, (0, 0.5, 0), 0, 1),
        (90, (0, 0, 0.5), -1, 0),  # from +X, the front (+Z) is on the left
        (180, (0.5, 0, 0), -1, 0),
        (-90, (0, 0, 0.5), 1, 0),
    ],
)
def test_world_axes_appear_where_they_should(azimuth, point, right, up):
    cameras = orbit_cameras([float(azimuth)], 0.0, 4.0, 0.6, 100)
    (pixel,), depth = project(cameras, point)
    focal = 50 / math.tan(0.3)
    assert pixel[0] == pytest.approx(50 + right * 0.5 * focal / 4, abs=1e-3)
    assert pixel[1] == pytest.approx(50 - up * 0.5 * focal / 4, abs=1e-3)
    assert depth == pytest.approx(4.0)


def test_nearer_means_the_front_at_azimuth_zero():
    cameras = orbit_cameras([0.0], 0.0, 4.0, 0.6, 100)
    assert project(cameras, (0, 0, 1))[1] == pytest.approx(3.0)


@pytest.mark.parametrize("elevation", [-90.0, 90.0])
def test_straight_up_and_down_stay_rotations(elevation):
    rotation = orbit_cameras([0.0], elevation, 3.0, 0.6, 64).viewmats[0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)


def test_look_at_puts_the_target_in_the_middle():
    g = torch.Generator().manual_seed(0)
    eye, target = torch.randn(5, 3, generator=g) * 4, torch.randn(5, 3, generator=g)
    viewmats = look_at(eye, target, torch.tensor([0.0, 1, 0]).expand(5, 3))
    local = (viewmats[:, :3, :3] @ target[..., None])[..., 0] + viewmats[:, :3, 3]
    torch.testing.assert_close(local[:, :2], torch.zeros(5, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(local[:, 2], (eye - target).norm(dim=1))


def test_turntable_is_the_evaluation_protocol():
    cameras = turntable()
    assert len(cameras) == 120
    assert cameras.elevation.unique().tolist() == [0.0]
    assert cameras.fov[0] == pytest.approx(0.55)
    step = wrap_degrees(cameras.azimuth[1:] - cameras.azimuth[:-1])
    torch.testing.assert_close(step, torch.full((119,), 3.0), atol=1e-4, rtol=0)
    eye = -(cameras.viewmats[:, :3, :3].transpose(1, 2) @ cameras.viewmats[:, :3, 3:])[..., 0]
    torch.testing.assert_close(eye.norm(dim=1), torch.full((120,), 3.5))


def test_wrap_degrees():
    assert wrap_degrees(torch.tensor([180.0, -180.0, 190.0, 540.0, 0.0])).tolist() == [180, 180, -170, 180, 0]


def test_published_ranges_progress_every_500_steps():
    config = OrbitConfig()

    def radians(step):
        return tuple(math.radians(end) for end in config.ranges(step)[1])

    assert config.ranges(0)[0] == (5.2, 5.5)
    assert radians(0) == pytest.approx((0.32, 0.60), abs=1e-12)
    assert config.ranges(499) == config.ranges(0)
    assert config.ranges(500)[0] == pytest.approx((5.2 * 0.95, 5.5 * 0.95))
    assert radians(500) == pytest.approx((0.24, 0.60))
    assert radians(1000) == pytest.approx((0.18, 0.60))
    assert config.ranges(100_000)[0] == (3.5, 5.0)
    assert radians(100_000) == pytest.approx((0.16, 0.60))


def test_samples_stay_in_range_and_repeat():
    config = OrbitConfig(center_jitter=0.0, target_jitter=0.0, up_jitter=0.0)
    cameras = sample_orbit(config, 400, 64, 0, torch.Generator().manual_seed(1))
    again = sample_orbit(config, 400, 64, 0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(cameras.viewmats, again.viewmats, atol=0, rtol=0)
    assert -15 <= cameras.elevation.min() < -10
    assert 40 < cameras.elevation.max() <= 45
    assert cameras.azimuth.min() < -150
    assert cameras.azimuth.max() > 150
    eye = -(cameras.viewmats[:, :3, :3].transpose(1, 2) @ cameras.viewmats[:, :3, 3:])[..., 0]
    assert 5.2 - 1e-4 <= eye.norm(dim=1).min() <= eye.norm(dim=1).max() <= 5.5 + 1e-4
    # The recorded angles are those of the matrices.
    azimuth = torch.rad2deg(torch.atan2(eye[:, 0], eye[:, 2]))
    torch.testing.assert_close(wrap_degrees(azimuth - cameras.azimuth), torch.zeros(400), atol=1e-2, rtol=0)


def test_concentration_gathers_views_at_the_front():
    def mean_azimuth(g):
        config = OrbitConfig(concentration=g)
        return sample_orbit(config, 2000, 64, 0, torch.Generator().manual_seed(0)).azimuth.abs().mean()

    assert mean_azimuth(1.0) == pytest.approx(90, abs=4)
    assert mean_azimuth(1.8) == pytest.approx(180 / 2.8, abs=4)


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        ("cameras.radius", {"radius": (2.0, 1.0)}),
        ("cameras.radius", {"radius": (0.0, 1.0)}),
        ("cameras.fov", {"fov": (0.1, 30.0)}),
        ("cameras.fov", {"fov": (30.0, 181.0)}),
        ("cameras.final_fov_min", {"final_fov_min": 0.0}),
        ("cameras.final_radius", {"final_radius": (5.0, 3.5)}),
        ("cameras.elevation", {"elevation": (-100.0, 0.0)}),
        ("cameras.concentration", {"concentration": 0.0}),
        ("cameras.azimuth_factor", {"azimuth_factor": 0.9}),
        ("cameras.fov_pool", {"fov_pool": -1}),
        ("cameras.fov_pool_views", {"fov_pool_views": -1}),
    ],
)
def test_bad_ranges_name_the_field(field, kwargs):
    with pytest.raises(InputError) as error:
        OrbitConfig(**kwargs)
    assert error.value.field == field


def test_a_head_is_seen_from_further_behind_as_it_grows():
    head = with_angles(OrbitConfig(), "head")
    assert head.elevation == (0.0, 45.0)  # polar 45 to 90
    assert head.concentration == 1.5
    assert [head.azimuth_range(i) for i in (0, 499, 500, 1000, 5000)] == [
        (-80.0, 80.0),
        (-80.0, 80.0),
        (-120.0, 120.0),
        (-180.0, 180.0),
        (-180.0, 180.0),
    ]
    draw = lambda step: sample_orbit(head, 500, 64, step, torch.Generator().manual_seed(0)).azimuth.abs().max()
    assert 78 < draw(0) <= 80
    assert 117 < draw(500) <= 120
    assert 170 < draw(1000) <= 180


def test_a_head_grows_where_the_cameras_keep_their_ranges():
    starter = OrbitConfig(radius=(3.4, 3.8), fov=(33.0, 37.0), progress_every=0)
    head = with_angles(starter, "head", 150)
    assert [head.azimuth_range(i)[1] for i in (0, 36, 37, 74, 149)] == [80.0, 80.0, 120.0, 180.0, 180.0]
    assert head.ranges(149) == starter.ranges(149)  # nothing else progresses
    assert with_angles(starter, "full", 150).progress_every == 0


def test_camera_presets_keep_distances_and_fields_of_view():
    starter = OrbitConfig(radius=(3.4, 3.8), fov=(33.0, 37.0), progress_every=0)
    for name in CAMERA_PRESETS:
        found = with_angles(starter, name)
        assert (found.radius, found.fov, found.progress_every) == (starter.radius, starter.fov, 0)
    assert with_angles(OrbitConfig(), "object") == OrbitConfig()
    full = with_angles(OrbitConfig(), "full")
    assert full.elevation[0] < -45
    assert full.elevation[1] > 60
    assert OrbitConfig(azimuth=(-90.0, 90.0)).azimuth_range(5000) == (-90.0, 90.0)  # grows only where asked to
    with pytest.raises(InputError, match="angles: expected one of object, head, full, got feet"):
        with_angles(starter, "feet")


def test_fields_of_view_are_degrees():
    config = OrbitConfig(fov=(40.0, 40.0))
    cameras = sample_orbit(config, 1, 64, 0, torch.Generator().manual_seed(0))
    assert float(cameras.fov[0]) == pytest.approx(math.radians(40.0))
    assert float(cameras.Ks[0, 0, 0]) == pytest.approx(32 / math.tan(math.radians(20.0)))


def test_one_field_of_view_per_pool_or_per_view():
    def fovs(places):
        places = None if places is None else torch.full((6,), places)
        return sample_orbit(OrbitConfig(), 6, 64, 0, torch.Generator().manual_seed(3), places)

    each, low, middle, high = fovs(None), fovs(0.0), fovs(0.5), fovs(1.0)
    assert len(set(each.fov.tolist())) == 6
    for cameras, expected in ((low, 0.32), (middle, 0.46), (high, 0.60)):
        torch.testing.assert_close(cameras.fov, torch.full((6,), expected))
        assert torch.equal(each.viewmats, cameras.viewmats)  # nothing else changes
    torch.testing.assert_close(middle.Ks[0, 0, 0], 32 / torch.tan(middle.fov[0] / 2))


@pytest.mark.parametrize("views", [1, 2, 3, 4, 7, 25])
def test_ten_views_in_a_row_share_a_field_of_view(views):
    """The released code draws one for ten cameras, whichever steps use them: view i of step k has (4k + i) // 10."""
    asked = []

    def draw(pool):
        asked.append(pool)
        return pool / 1000

    found = [pooled_fov(OrbitConfig(), views, step, draw) for step in range(12)]
    assert torch.cat(found).tolist() == pytest.approx([n // 10 / 1000 for n in range(12 * views)])
    assert asked == [n // 10 for n in range(12 * views)]
    assert pooled_fov(OrbitConfig(fov_pool_views=0), views, 3, draw) is None
    steps = [pooled_fov(OrbitConfig(fov_pool=3), views, step, draw) for step in range(7)]  # steps, not views
    torch.testing.assert_close(torch.stack(steps)[:, 0] * 1000, torch.tensor([0.0, 0, 0, 1, 1, 1, 2]))
    assert all(len(set(step.tolist())) == 1 for step in steps)
