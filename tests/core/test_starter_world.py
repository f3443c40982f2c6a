"""The starter world: frames, patterns, captions, what is held out."""

from __future__ import annotations

import pytest
import torch

from dreamer_core.cameras import orbit_cameras, orbit_position
from dreamer_core.optimize.presets import STARTER_ORBIT
from starter.dataset import allowed_table, caption, draw_words
from starter.shapes import CARROT, KINDS
from starter.world import (
    COLOURS,
    KIND_NAMES,
    LAYERS,
    PATTERNS,
    RESOLUTION,
    VIEW_WORDS,
    Subject,
    all_subjects,
    heldout_subjects,
    parse_prompt,
    random_backgrounds,
    render,
    render_layers,
    training_cameras,
    view_words,
)

WHITE = torch.ones(1, 3)


def rows_covered(image_layers: torch.Tensor) -> torch.Tensor:
    return (image_layers[..., 6] < 0.5).sum(-1).float()


def test_enough_kinds_colours_and_patterns() -> None:
    assert len(KINDS) >= 16
    assert len(COLOURS) >= 8
    assert len(PATTERNS) == 3
    assert len(all_subjects()) == len(KINDS) * len(COLOURS) * len(PATTERNS)


def test_objects_stand_upright() -> None:
    layers = render_layers("tree", orbit_cameras([0.0], 0.0, 3.6, 0.6, 64))[0]
    covered = rows_covered(layers)
    # The crown is above the trunk and wider.
    assert covered[8:24].max() > 2 * covered[46:].max()


def test_front_faces_plus_z() -> None:
    """The orange bill of the duck shows from the front and not from behind; seen from +X it points to the left."""
    images = render(Subject("duck", "blue"), orbit_cameras([0.0, 90.0, 180.0], 5.0, 3.6, 0.6, 96), WHITE.expand(3, 3))
    ratio = torch.tensor(CARROT)
    hue = images / images.amax(-1, keepdim=True).clamp_min(1e-3)
    bill = ((hue - ratio / ratio.max()).abs().amax(-1) < 0.08).float()
    front, side, back = bill.sum((1, 2)).tolist()
    assert front > 20
    assert side > 10
    assert back == 0
    columns = (bill[1].sum(0) * torch.arange(96)).sum() / side
    assert columns < 30


def test_mug_handle_is_on_the_right_from_the_front() -> None:
    layers = render_layers("mug", orbit_cameras([0.0, 180.0], 0.0, 3.6, 0.6, 64))
    columns = (layers[..., 6] < 0.5).any(1).float()
    front, back = [row.nonzero()[:, 0] for row in columns]
    assert 63 - front.max() < front.min()
    assert 63 - back.max() > back.min()


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_objects_fill_the_frame_and_stay_inside(kind: str) -> None:
    layers = render_layers(kind, orbit_cameras([0.0, 90.0], 15.0, 3.6, 0.61, 48))
    covered = layers[..., 6] < 0.5
    border = torch.ones(48, 48, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not (covered & border).any()
    assert covered.any(2).sum(1).max() > 24 or covered.any(1).sum(1).max() > 24
    front, side = covered[0], covered[1]
    difference = (layers[0] - layers[1]).abs().amax(-1).gt(0.1).sum()
    assert front.any()
    assert side.any()
    assert difference > 40, "front and side must look different"


def test_layers_render_every_colour_and_pattern() -> None:
    cameras = orbit_cameras([20.0], 10.0, 3.6, 0.6, 48)
    plain, striped, dotted = (render(Subject("mug", "red", p), cameras, WHITE)[0] for p in PATTERNS)
    for other in (striped, dotted):
        changed = (plain - other).abs().amax(-1) > 0.2
        assert changed.sum() > 60
    blue = render(Subject("mug", "blue"), cameras, WHITE)[0]
    inside = render_layers("mug", cameras)[0, ..., 0] > 0.4
    assert plain[inside][:, 0].mean() > plain[inside][:, 2].mean() + 0.3
    assert blue[inside][:, 2].mean() > blue[inside][:, 0].mean() + 0.3
    assert render_layers("mug", cameras).shape == (1, 48, 48, LAYERS)


def test_captions_name_what_is_shown() -> None:
    assert Subject("mug", "red", "striped").prompt() == "a red striped mug"
    assert Subject("umbrella" if "umbrella" in KINDS else "airplane", "orange").prompt().startswith("an orange")
    assert Subject("airplane", "red").prompt(colour=False) == "an airplane"
    for subject in all_subjects():
        assert parse_prompt(f"{subject.prompt()}, side view") == subject
    assert parse_prompt("a mug") is None
    generator = torch.Generator().manual_seed(0)
    said = {caption(Subject("car", "blue", "dotted"), "back view", generator) for _ in range(200)}
    assert {"a blue dotted car, back view", "a blue dotted car", "a dotted car, back view"} <= said


@pytest.mark.parametrize(
    ("azimuth", "sided", "words"),
    [
        (0, True, {"front view": 1.0}),
        (45, True, {"front view": 0.5, "left side view": 0.5}),
        (-90, True, {"right side view": 1.0}),
        (-90, False, {"side view": 1.0}),
        (135, False, {"side view": 0.5, "back view": 0.5}),
        (-171, True, {"right side view": 0.1, "back view": 0.9}),
        (180, True, {"back view": 1.0}),
        (450, True, {"left side view": 1.0}),
    ],
)
def test_view_words_are_blended_by_azimuth(azimuth: float, sided: bool, words: dict[str, float]) -> None:
    first, second, share = view_words(azimuth, sided)
    said = {word: weight for word, weight in ((first, 1 - share), (second, share)) if weight}
    assert said == pytest.approx(words)


def test_the_left_side_is_where_the_object_says_it_is() -> None:
    """It faces +Z with +Y up, so its left is up x forward; cameras there see the left side."""
    up, forward = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    (seen_from,) = orbit_position(torch.tensor([VIEW_WORDS["left side view"]]), torch.zeros(1), torch.ones(1))
    torch.testing.assert_close(seen_from, torch.linalg.cross(up, forward), atol=1e-6, rtol=0)


def test_heldout_combinations_are_never_drawn() -> None:
    heldout = heldout_subjects()
    assert len(heldout) == 48
    assert heldout <= set(all_subjects())
    assert Subject("mug", "red") not in heldout
    generator = torch.Generator().manual_seed(0)
    words = draw_words(torch.arange(len(KIND_NAMES)).repeat(400), torch.zeros(400 * len(KIND_NAMES)), generator)
    drawn = {words.subject(i) for i in range(len(words))}
    assert not drawn & heldout
    assert len(drawn) == len(all_subjects()) - len(heldout)
    assert int(allowed_table(heldout=True).sum()) == len(heldout)


def test_cameras_and_backgrounds_follow_the_preset() -> None:
    cameras = training_cameras(200, torch.Generator().manual_seed(0))
    assert (cameras.width, cameras.height) == (RESOLUTION, RESOLUTION)
    assert cameras.elevation.min() >= STARTER_ORBIT.elevation[0]
    assert cameras.elevation.max() <= STARTER_ORBIT.elevation[1]
    backgrounds = random_backgrounds(4000, torch.Generator().manual_seed(1))
    assert float((backgrounds == 1).all(-1).float().mean()) == pytest.approx(0.34, abs=0.03)
    assert float((backgrounds == 0).all(-1).float().mean()) == pytest.approx(0.33, abs=0.03)
