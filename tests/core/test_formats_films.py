"""Turntables as MP4, animated WebP and GIF."""

import json

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dreamer_core.errors import InputError
from dreamer_core.media import FILMS, check_film, frame_durations, write_film

COLORS = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.2, 0.2, 0.9], [0.9, 0.9, 0.1], [0.4, 0.4, 0.4]])


def frames():
    """Five pictures of one colour each, with a darker half."""
    for color in COLORS:
        picture = color.expand(32, 48, 3).clone()
        picture[16:] *= 0.5
        yield picture


@pytest.mark.parametrize("suffix", FILMS)
def test_frames_come_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_film(frames(), path, 10)
    if suffix == ".mp4":
        with av.open(str(path)) as film:
            (stream,) = film.streams.video
            assert stream.average_rate == 10
            pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    else:
        film = Image.open(path)
        assert film.info["loop"] == 0  # for ever
        pictures, durations = [], []
        for frame in ImageSequence.Iterator(film):
            pictures.append(np.array(frame.convert("RGB")))  # WebP knows its duration once it is decoded
            durations.append(frame.info["duration"])
        assert durations == [100] * 5
    assert len(pictures) == 5
    for picture, color in zip(pictures, COLORS.numpy()):
        assert picture.shape == (32, 48, 3)
        off = {".gif": 1, ".webp": 6, ".mp4": 8}[suffix]  # lossless for few colours, lossy, lossy
        np.testing.assert_allclose(picture[8, 24], 255 * color, atol=off)
        np.testing.assert_allclose(picture[24, 24], 255 * color / 2, atol=off)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


METADATA = {"prompt": {"1": {"class_type": "Ünusual"}}, "workflow": {"nodes": [1, 2]}, "generator": "Dreamer XL"}


def kept(path):
    """What a film says of itself, read without our code."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as film:
            return {name: json.loads(film.metadata[name]) for name in METADATA if name in film.metadata}
    film = Image.open(path)
    if path.suffix == ".gif":
        return json.loads(film.info.get("comment", "{}"))
    # As the frontend takes an animated WebP apart: every EXIF text up to its first colon is a name.
    pairs = (str(value).partition(":") for value in film.getexif().values())
    return {name: json.loads(text) for name, _, text in pairs}


@pytest.mark.parametrize("suffix", FILMS)
def test_metadata_comes_back(tmp_path, suffix):
    write_film(frames(), tmp_path / f"with{suffix}", 10, METADATA)
    assert kept(tmp_path / f"with{suffix}") == METADATA
    write_film(frames(), tmp_path / f"without{suffix}", 10)
    assert kept(tmp_path / f"without{suffix}") == {}


def test_durations_add_up():
    assert sum(frame_durations(24, 24, 0.01)) == 100
    assert set(frame_durations(24, 24, 0.01)) == {4, 5}
    assert sum(frame_durations(48, 24, 0.001)) == 2000
    assert frame_durations(3, 50, 0.01) == [2, 2, 2]


def test_what_a_film_cannot_hold_is_refused():
    names = ("--resolution", "--fps")
    with pytest.raises(InputError, match="--resolution: expected an even number"):
        check_film(".mp4", 65, 24, names)
    with pytest.raises(InputError, match="--fps: expected at most 50"):
        check_film(".gif", 65, 60, names)
    check_film(".webp", 65, 60, names)
    check_film(".gif", 65, 50, names)


@pytest.mark.parametrize("suffix", FILMS)
def test_no_frames_leave_no_file(tmp_path, suffix):
    with pytest.raises(ValueError, match="at least one frame"):
        write_film(iter(()), tmp_path / f"a{suffix}", 24)
    assert not list(tmp_path.iterdir())
