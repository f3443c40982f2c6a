"""View words and their interpolation."""

import pytest
import torch

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import InputError
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
