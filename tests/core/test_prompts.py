"""View words and their interpolation."""

from dataclasses import replace

import pytest
import torch

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import InputError
from dreamer_core.optimize.views import DrawnViews
from dreamer_core.prompts import PromptConfig, encode_prompts, view_weights
from dreamer_core.teachers.teacher import Conditioning


class WordEncoder:
    """One-hot rows in the order of the prompts."""

    def __init__(self):
        self.texts = []

    def encode_text(self, prompts):
        self.texts = list(prompts)
        n = len(prompts)
        return Conditioning(torch.eye(n)[:, None].repeat(1, 2, 1), torch.eye(n))


def pooled_at(azimuth, elevation=0.0, **kwargs):
    encoder = WordEncoder()
    prompts = encode_prompts(encoder, PromptConfig("a red mug", negative="blurry", **kwargs))
    cond = prompts.at(orbit_cameras([azimuth], elevation, 3.0, 0.6, 64))
    torch.testing.assert_close(cond.positive.tokens[0, 0], cond.positive.pooled[0])
    return encoder.texts, cond


def test_texts_are_the_published_ones():
    texts, cond = pooled_at(0.0)
    assert texts == ["a red mug, front view", "a red mug, side view", "a red mug, back view", "blurry", ""]
    assert cond.negative.pooled[0].argmax() == 3
    assert cond.inversion.pooled[0].argmax() == 4


@pytest.mark.parametrize(
    ("azimuth", "weights"),
    [
        (0, (1, 0, 0)),
        (45, (0.5, 0.5, 0)),
        (-45, (0.5, 0.5, 0)),
        (90, (0, 1, 0)),
        (-120, (0, 2 / 3, 1 / 3)),
        (180, (0, 0, 1)),
    ],
)
def test_interpolation_by_azimuth(azimuth, weights):
    _, cond = pooled_at(float(azimuth))
    torch.testing.assert_close(cond.positive.pooled[0, :3], torch.tensor(weights, dtype=torch.float32))


@pytest.mark.parametrize("azimuth", [30.0, 90.0, 135.0])
def test_view_words_stay_true_when_the_batch_is_mirrored(azimuth):
    """A mirrored view at an azimuth shows the side that the opposite azimuth names, and both get the same words."""
    texts, cond = pooled_at(azimuth, perp_neg=True, overhead="overhead view")
    _, mirrored = pooled_at(-azimuth, perp_neg=True, overhead="overhead view")
    torch.testing.assert_close(cond.positive.pooled, mirrored.positive.pooled)
    assert len(cond.perpendicular) == len(mirrored.perpendicular) > 0
    for a, b in zip(cond.perpendicular, mirrored.perpendicular):
        torch.testing.assert_close(a.weight, b.weight)
    assert not any(word in text for text in texts for word in ("left", "right"))


def test_overhead_fades_in_with_elevation():
    for elevation, share in ((30.0, 0.0), (60.0, 0.5), (80.0, 1.0)):
        _, cond = pooled_at(0.0, elevation, overhead="overhead view")
        assert cond.positive.pooled[0, 5] == pytest.approx(share)
        assert cond.positive.pooled[0, 0] == pytest.approx(1 - share)


def test_weights_sum_to_one():
    weights = view_weights(torch.linspace(-180, 180, 361))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(361))
    assert weights.min() >= 0


def test_empty_words_leave_the_prompt_alone():
    texts, _ = pooled_at(0.0, front="", side="", back="")
    assert texts[:3] == ["a red mug"] * 3


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        ("prompt.overhead_from", {"overhead_from": 80.0}),  # beside 75
        ("prompt.overhead_to", {"overhead_to": 91.0}),
        ("prompt.perp_neg_weight", {"perp_neg_weight": 0.1}),
        ("prompt.perp_neg_front_decay", {"perp_neg_front_decay": -1.0}),
        ("prompt.perp_neg_side_decay", {"perp_neg_side_decay": 101.0}),
    ],
)
def test_bad_values_name_the_field(field, kwargs):
    with pytest.raises(InputError) as error:
        PromptConfig("a mug", **kwargs)
    assert error.value.field == field


def test_empty_prompt_is_refused():
    with pytest.raises(InputError, match="prompt: expected a description of the object, got an empty text"):
        PromptConfig("  ")


# -- left and right ---------------------------------------------------------------------------------------------------

SIDES = {"left": "left side view", "right": "right side view"}


@pytest.mark.parametrize(
    ("azimuth", "expected"),
    [
        (0, {"front view": 1.0}),
        (90, {"left side view": 1.0}),
        (-90, {"right side view": 1.0}),
        (45, {"front view": 0.5, "left side view": 0.5}),
        (-120, {"right side view": 2 / 3, "back view": 1 / 3}),
        (180, {"back view": 1.0}),
    ],
)
def test_left_and_right_have_words_of_their_own(azimuth, expected):
    texts, cond = pooled_at(float(azimuth), **SIDES)
    found = {t.partition(", ")[2]: w for t, w in zip(texts, cond.positive.pooled[0].tolist()) if w}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("azimuth", [30.0, -100.0])
def test_one_side_alone_may_have_words(azimuth):
    """The other one is the plain side."""
    texts, cond = pooled_at(azimuth, left="left side view")
    weights = dict(zip(texts, cond.positive.pooled[0].tolist()))
    assert (weights["a red mug, left side view"] > 0) == (azimuth > 0)
    assert (weights["a red mug, side view"] > 0) == (azimuth < 0)


@pytest.mark.parametrize(("azimuth", "side"), [(15.0, "left"), (-15.0, "right")])
def test_perp_neg_avoids_the_nearer_side(azimuth, side):
    texts, cond = pooled_at(azimuth, perp_neg=True, **SIDES)
    (avoided,) = cond.perpendicular
    assert texts[int(avoided.cond.pooled[0].argmax())] == f"a red mug, {side} side view"


def test_a_mirrored_picture_shows_the_other_side():
    """And the cameras themselves stay."""
    cameras = orbit_cameras([30.0, 180.0, -90.0], 10.0, 3.0, 0.6, 64)
    mirrored = cameras.mirrored()
    assert mirrored.azimuth.tolist() == [-30.0, 180.0, 90.0]
    torch.testing.assert_close(mirrored.viewmats, cameras.viewmats)
    drawn = DrawnViews(cameras, torch.zeros(3, 3), depth=False, flip=True)
    assert drawn.shown.azimuth.tolist() == [-30.0, 180.0, 90.0]
    assert replace(drawn, flip=False).shown is cameras


def test_the_same_words_on_both_sides_give_the_very_numbers():
    """Of a prompt that does not tell them apart."""
    for azimuth in (-170.0, -45.0, 10.0, 90.0):
        _, plain = pooled_at(azimuth)
        texts, sided = pooled_at(azimuth, left="side view", right="side view")
        column = {text: i for i, text in reversed(list(enumerate(texts)))}
        gathered = torch.zeros(3)
        for text, weight in zip(texts, sided.positive.pooled[0]):
            if column[text] < 3:
                gathered[column[text]] += weight
        torch.testing.assert_close(gathered, plain.positive.pooled[0, :3], rtol=0, atol=0)
