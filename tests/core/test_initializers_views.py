"""Pictures from known sides become Gaussians that look like them."""

import math

import pytest
import torch

from dreamer_core.cameras import orbit_cameras, orthographic_cameras, project_points
from dreamer_core.errors import InputError
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers.views import ViewPictures, border_colours, gaussians_from_views, silhouettes
from dreamer_core.rendering import render

pytestmark = pytest.mark.usefixtures("single_threaded")

AZIMUTHS = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)
GREY = 0.5


def thing():
    """A red ball in front (+Z), a blue one at +X and a green bar on top: no side looks like another."""
    means = torch.tensor([[0.0, -0.2, 0.45], [0.45, -0.2, 0.0], [0.0, 0.5, 0.0], [-0.25, 0.5, 0.0], [0.25, 0.5, 0.0]])
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    return Gaussians.from_activated(
        means, torch.tensor([[1.0, 0, 0, 0]]).repeat(5, 1), torch.full((5, 3), 0.13), torch.full((5,), 0.99), colours
    )


def pictures(cameras, grey=GREY):
    return render(thing(), cameras, backgrounds=torch.full((len(cameras), 3), grey)).colors.detach().clamp(0, 1)


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


@pytest.mark.parametrize("perspective", [False, True])
def test_fitted_gaussians_show_the_object_from_sides_nobody_gave(perspective):
    fov = 0.6 if perspective else 0.0
    elevations = (0.0, 20.0, 0.0, 0.0, -10.0, 0.0)
    views = ViewPictures(torch.zeros(6, 64, 64, 3), AZIMUTHS, elevations, 1.1, fov)
    if perspective:
        radius = 1.1 / math.tan(0.3)
        torch.testing.assert_close(views.cameras(64).viewmats[0, 2, 3], torch.tensor(radius))
    views = ViewPictures(pictures(views.cameras(64)), AZIMUTHS, elevations, 1.1, fov)
    done = []
    start = gaussians_from_views(views, 600, steps=0)
    found = gaussians_from_views(views, 600, steps=60, on_step=lambda *of: done.append(of))
    assert done == [(i, 60) for i in range(1, 61)]
    unseen = orbit_cameras([20.0, 135.0, -110.0], 10.0, 3.5, 0.6, 64)
    expected = pictures(unseen)
    before, after = (psnr(pictures_of(g, unseen), expected) for g in (start, found))
    assert after > before + 3
    assert after > 20
    turned = pictures_of(found, orbit_cameras([200.0, 315.0, 70.0], 10.0, 3.5, 0.6, 64))
    assert psnr(turned, expected) < after - 5  # and not just a blob


def pictures_of(gaussians, cameras):
    return render(gaussians, cameras, backgrounds=torch.full((len(cameras), 3), GREY)).colors.clamp(0, 1)


def test_the_same_seed_gives_the_same_gaussians():
    views = ViewPictures(pictures(orthographic_cameras(AZIMUTHS, 0.0, 1.1, 48)), AZIMUTHS)
    a, b, c = (gaussians_from_views(views, 100, steps=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.means, b.means)
    assert not torch.equal(a.means, c.means)


def test_large_and_oblong_pictures_are_brought_to_size():
    images = torch.full((2, 100, 700, 3), 0.2)
    images[:, 40:60, 300:400] = 0.9
    squares, masks, backgrounds = ViewPictures(images, (0.0, 90.0)).prepared()
    assert squares.shape == (2, 512, 512, 3)
    torch.testing.assert_close(backgrounds, torch.full((2, 3), 0.2))
    assert masks.mean() == pytest.approx(20 * 100 / 700**2, rel=0.15)
    assert squares[0, 256, 256, 0] == pytest.approx(0.9)


def test_silhouettes_find_what_differs_and_fill_it():
    images = torch.full((1, 40, 40, 3), GREY)
    images[0, 10:30, 10:30] = torch.tensor([0.9, 0.2, 0.2])
    images[0, 15:25, 15:25] = GREY + 0.01  # a window of the background's colour
    images[0, 3, 3] = 1.0  # a speck
    images[0, 35:, :] += 0.02  # noise
    found = silhouettes(images, border_colours(images))[0] > 0.5
    assert found[10:30, 10:30].all()
    assert found[31:].sum() == 0
    masks = torch.zeros(1, 40, 40)
    masks[0, :20] = 1.0
    given = ViewPictures(images.repeat(2, 1, 1, 1), (0.0, 90.0), masks=masks).prepared()[1]
    assert torch.equal(given[1], masks[0])


def test_points_land_where_renders_show_them():
    for cameras in (orthographic_cameras([30.0], 10.0, 1.1, 64), orbit_cameras([30.0], 10.0, 3.5, 0.6, 64)):
        one = Gaussians.from_activated(torch.tensor([[0.3, -0.2, 0.4]]), torch.tensor([[1.0, 0, 0, 0]]),
                                       torch.full((1, 3), 0.03), torch.tensor([0.99]), torch.ones(1, 3))  # fmt: skip
        image = render(one, cameras, backend="torch").alphas[0, ..., 0]
        y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
        pixel = project_points(cameras, one.means)[0][0, 0]
        assert (image * x).sum() / image.sum() == pytest.approx(float(pixel[0]), abs=0.05)
        assert (image * y).sum() / image.sum() == pytest.approx(float(pixel[1]), abs=0.05)


def test_what_cannot_be_fitted_is_named():
    image = pictures(orthographic_cameras([0.0, 90.0], 0.0, 1.1, 32))

    def fails(match, images=image, azimuths=(0.0, 90.0), **more):
        with pytest.raises(InputError, match=match):
            gaussians_from_views(ViewPictures(images, azimuths, **more), 50, steps=1)

    fails("azimuths: .*2 picture.* and 3 azimuth", azimuths=(0.0, 1.0, 2.0))
    fails("elevations: expected 1 or 2 of them, got 3", elevations=(0.0, 1.0, 2.0))
    blank = image.clone()
    blank[1] = GREY
    fails(r"nothing in picture 2 \(azimuth 90\)", images=blank)
    fails("masks: expected 2 of them, got 3", masks=torch.ones(3, 32, 32))
    apart = torch.full((2, 32, 32, 3), GREY)
    apart[0, 2:8, 12:20] = 1.0
    apart[1, 24:30, 12:20] = 1.0
    fails("silhouettes have no common solid", images=apart)
