"""Which Gaussians lie in a region."""

from dataclasses import replace

import pytest
import torch

from dreamer_core.cameras import orbit_cameras
from dreamer_core.editing.regions import Box, Nearest, Region, Seen, Sphere, parse_part
from dreamer_core.errors import InputError
from dreamer_core.gaussians import Gaussians


def grid(*points):
    n = len(points)
    return Gaussians.from_activated(
        means=torch.tensor(points),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(n, 1),
        scales=torch.full((n, 3), 0.05),
        opacities=torch.full((n,), 0.95),
        rgb=torch.full((n, 3), 0.5),
    )


ROW = grid(*((0.1 * i, 0.0, 0.0) for i in range(8)))


def found(*parts, of=ROW, inverted=False):
    return Region(parts, inverted).mask(of).nonzero()[:, 0].tolist()


def test_box_sphere_and_points():
    assert found(Box((0.25, 0.0, 0.0), (0.21, 1.0, 1.0))) == [2, 3]
    assert found(Sphere((0.0, 0.0, 0.0), 0.25)) == [0, 1, 2]
    assert found(Sphere((0.0, 0.3, 0.0), 0.25), Nearest((0.9, 0.1, 0.0), 2)) == [6, 7]
    assert found(Nearest((0.0, 0.0, 0.0), 99)) == list(range(8))
    assert found(Box((0.25, 0.0, 0.0), (0.21, 1.0, 1.0)), inverted=True) == [0, 1, 4, 5, 6, 7]


def test_an_empty_region_is_refused():
    with pytest.raises(InputError, match="region: expected at least one Gaussian in it, got none"):
        found(Sphere((5.0, 0.0, 0.0), 0.1))
    with pytest.raises(InputError, match="outside of it"):
        found(Sphere((0.0, 0.0, 0.0), 9.0), inverted=True)


def test_large_coordinates_are_compared_in_double():
    far = replace(ROW, means=ROW.means.double() + 1e7)
    assert found(Box((1e7 + 0.25, 1e7, 1e7), (0.21, 1.0, 1.0)), of=far) == [2, 3]


def test_seen_through_a_mask():
    front = orbit_cameras([0.0], 0.0, 3.5, 0.55, 64)
    scene = grid((-0.5, 0.0, 0.3), (0.5, 0.0, 0.3), (-0.5, 0.0, -0.5), (0.5, 0.0, -0.5))
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1.0
    assert found(Seen(left, front), of=grid((-0.5, 0.0, 0.3), (0.5, 0.0, 0.3))) == [0]
    assert found(Seen(left, front, behind=True), of=scene) == [0, 2]
    solid = replace(scene, log_scales=torch.full((4, 3), 0.2).log(), logit_opacities=torch.full((4,), 9.0))
    covered = replace(solid, means=torch.tensor([(-0.5, 0.0, 0.3), (0.5, 0.0, 0.3), (-0.45, 0.0, -0.5), (0.0, 0.9, 0)]))
    narrow = left * 0
    narrow[:, 28:36, 8:20] = 1.0
    assert found(Seen(narrow, front, behind=True), of=covered) == [0, 2]
    both_sides = orbit_cameras([0.0, 90.0], 0.0, 3.5, 0.55, 64)
    masks = torch.cat([left, left])  # from +X, +Z lies on the left
    assert found(Seen(masks, both_sides, behind=True), of=scene) == [0]
    with pytest.raises(InputError, match="masks of shape"):
        Seen(left[:, :32], front)


def test_what_is_hidden_is_not_seen():
    front = orbit_cameras([0.0], 0.0, 3.5, 0.55, 64)
    wall = [(0.1 * i - 0.45, 0.1 * j - 0.45, 0.4) for i in range(10) for j in range(10)]
    scene = grid(*wall, (0.0, 0.0, -0.4))
    scene = replace(scene, log_scales=torch.full((101, 3), 0.08).log(), logit_opacities=torch.full((101,), 12.0))
    centre = torch.zeros(1, 64, 64)
    centre[:, 20:44, 20:44] = 1.0
    seen = found(Seen(centre, front), of=scene)
    assert len(seen) > 9
    assert 100 not in seen
    assert 100 in found(Seen(centre, front, behind=True), of=scene)


@pytest.mark.parametrize("text", ["box:1,2,3", "ball:0,0,0,1", "sphere:0,0,0,-1", "sphere:0,0,x,1", "points:0,0,0,0",
                                  "box:0,0,0,1,1,0", "sphere:0,0,0,inf", ""])  # fmt: skip
def test_broken_regions_are_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"^--region: expected ") as error:
        parse_part(text)
    assert "\n" not in str(error.value)


def test_parts_from_text():
    assert parse_part("box:0,1,2,3,4,5") == Box((0, 1, 2), (3, 4, 5))
    assert parse_part("sphere:0,-1e5,2,.5") == Sphere((0, -1e5, 2), 0.5)
    assert parse_part("points:0,0,0,300") == Nearest((0, 0, 0), 300)
