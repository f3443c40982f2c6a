"""The final clean-up: what goes, what stays."""

import pytest
import torch

from dreamer_core.errors import InputError
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import CleanupConfig, CleanupReport, clean


def joined(*parts):
    names = [name for name, _ in parts[0].tensors()]
    return Gaussians(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


def blob(count, at=(0.0, 0.0, 0.0), size=0.5, opacity=0.8):
    shape = initial_shape("sphere", count, torch.Generator().manual_seed(count), size=size, opacity=opacity)
    return Gaussians(**{**dict(shape.tensors()), "means": shape.means + torch.tensor(at)})


def test_transparent_ones_go():
    scene = joined(blob(300), blob(40, opacity=0.004), blob(60, opacity=0.006))
    kept, report = clean(scene, CleanupConfig(floaters=False))
    assert report == CleanupReport(transparent=40, floaters=0)
    assert len(kept) == 360
    assert kept.opacities.min() >= 0.005
    assert torch.equal(kept.means, torch.cat([scene.means[:300], scene.means[340:]]))
    assert clean(scene, CleanupConfig(min_opacity=0.0, floaters=False))[1].removed == 0


def test_floaters_go_and_the_object_stays_whole():
    floaters = [blob(5, at, 0.01) for at in ((2.0, 0, 0), (0, -2.0, 0.5), (0, 0, 1.5))]
    scene = joined(blob(400), *floaters)
    kept, report = clean(scene, CleanupConfig())
    assert report == CleanupReport(transparent=0, floaters=15)
    assert torch.equal(kept.means, scene.means[:400])


def test_parts_that_show_something_stay_although_they_touch_nothing():
    scene = joined(blob(400), blob(60, (2.0, 0.0, 0.0), 0.2))  # an earring, say
    assert clean(scene, CleanupConfig())[1].removed == 0
    assert clean(scene, CleanupConfig(floater_share=20.0))[1].floaters == 60


def test_the_weight_of_a_group_is_what_it_shows_not_how_many_it_has():
    hidden, shown = blob(60, (2.0, 0.0, 0.0), 0.05, opacity=0.01), blob(4, (-2.0, 0.0, 0.0), 0.3, opacity=0.9)
    kept, report = clean(joined(blob(400), hidden, shown), CleanupConfig())
    assert report.floaters == 60
    assert (kept.means[:, 0] < -1).sum() == 4


def test_small_details_on_large_surroundings_are_no_floaters():
    """Fifty tiny Gaussians in the middle of coarse ones know only each other, but the coarse ones know them."""
    pupil = blob(50, (0.0, 0.0, 0.5), 0.005)
    assert clean(joined(blob(300), pupil), CleanupConfig())[1].removed == 0


def test_coincident_gaussians_are_one_group():
    scene = blob(50)
    scene = joined(scene, scene, scene)
    assert clean(scene, CleanupConfig())[1].removed == 0


def test_something_always_stays():
    faint = blob(20, opacity=0.001)
    assert len(clean(faint, CleanupConfig())[0]) == 20
    apart = joined(*[blob(4, (5.0 * i, 0.0, 0.0), 0.01) for i in range(9)])
    assert len(clean(apart, CleanupConfig(floater_share=99.0))[0]) == 4
    assert len(clean(blob(4)[:1], CleanupConfig())[0]) == 1
    broken = blob(9)
    broken.means[0] = float("nan")
    assert len(clean(broken, CleanupConfig())[0]) == 9


def test_off_is_off():
    scene = blob(30, opacity=0.001)
    assert clean(scene, CleanupConfig(enabled=False)) == (scene, CleanupReport())


@pytest.mark.parametrize(
    ("field", "value"), [("min_opacity", 1.0), ("floater_share", -0.1), ("reach", 0.0), ("neighbours", 0)]
)
def test_bad_values_name_the_field(field, value):
    with pytest.raises(InputError) as error:
        CleanupConfig(**{field: value})
    assert error.value.field == f"cleanup.{field}"
