"""Nearness to the true objects, on pictures whose nearness is known."""

import pytest
import torch

from dreamer_core.gaussians import Gaussians
from dreamer_core.rendering import render
from starter.evaluate_samples import EVERY, nearness_of
from starter.truth import VIEWS, cameras, nearness, true_pictures
from starter.world import Subject

CHAIR = Subject("chair", "green")


def test_the_true_object_is_as_near_as_can_be():
    pictures, coverage = true_pictures(CHAIR)
    found = nearness(pictures, coverage, CHAIR)
    assert (found.iou, found.iou_worst, found.ssim, found.turn) == pytest.approx((1.0, 1.0, 1.0, 0), abs=1e-4)
    assert found.psnr == pytest.approx(100.0)


def test_drawings_count_on_the_true_object_alone():
    pictures, coverage = (x[::EVERY] for x in true_pictures(CHAIR))
    there = (coverage > 0.5)[..., None]
    assert nearness_of(torch.where(there, pictures, 0.3), CHAIR) > 60
    assert nearness_of(torch.where(there, (pictures - 0.1), pictures), CHAIR) == pytest.approx(20.0, abs=1e-3)


def test_an_object_that_looks_another_way_is_turned_back():
    pictures, coverage = true_pictures(CHAIR)
    shift = VIEWS // 4
    found = nearness(pictures.roll(-shift, 0), coverage.roll(-shift, 0), CHAIR)
    assert (found.turned_iou, found.turn) == pytest.approx((1.0, 90))
    assert found.iou < 0.8
    assert found.iou_worst < found.iou


def test_colours_count_where_either_object_is():
    """A shift of 0.1 everywhere is 20 dB; the background counts for nothing, what is missing counts."""
    pictures, coverage = true_pictures(CHAIR)
    there = (coverage > 0.5)[..., None]
    assert nearness(pictures - 0.1 * there, coverage, CHAIR).psnr == pytest.approx(20.0, abs=1e-3)
    assert nearness(torch.where(there, pictures, 0.0), coverage, CHAIR).psnr == pytest.approx(100.0)
    gone = nearness(torch.ones_like(pictures), torch.zeros_like(coverage), CHAIR)
    assert gone.iou == 0.0
    assert gone.psnr < 10.0


def test_structure_counts():
    """A grey chair of the right shape lacks what is seen inside it."""
    pictures, coverage = true_pictures(Subject("chair", "green", "striped"))
    flat = torch.where((coverage > 0.5)[..., None], pictures[coverage > 0.5].mean(0), 1.0)
    assert nearness(flat, coverage, Subject("chair", "green", "striped")).ssim < 0.8


def test_pictures_and_truth_have_the_same_cameras():
    """A Gaussian at the tip of the rocket covers a pixel of its silhouette in every view, one beside it none."""
    there = true_pictures(Subject("rocket", "red"))[1] > 0.5

    def dot(x, y, z):
        one = Gaussians(torch.tensor([[x, y, z]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), -4.0),
                        torch.full((1,), 5.0), torch.zeros(1, 1, 3), torch.zeros(1, 0, 3))  # fmt: skip
        return render(one, cameras()).alphas[..., 0] > 0.5

    middle = dot(0.0, 0.0, 0.0)
    assert all(bool((middle[i] & there[i]).any()) for i in range(VIEWS))
    assert not any(bool((dot(0.0, 1.3, 0.0)[i] & there[i]).any()) for i in range(VIEWS))
