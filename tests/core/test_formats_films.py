"""Turntables as MP4, animated WebP and GIF."""

import json
import weakref
from io import BytesIO
from itertools import islice

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dreamer_core import media
from dreamer_core.animations import frame_durations
from dreamer_core.cameras import turntable
from dreamer_core.errors import InputError
from dreamer_core.initializers import initial_shape
from dreamer_core.media import (
    FILMS,
    check_film,
    contact_sheet,
    render_outputs,
    render_views,
    to_uint8,
    write_film,
)

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
    first = lambda count, *values: list(islice(frame_durations(*values), count))
    assert sum(first(24, 24, 0.01)) == 100
    assert set(first(24, 24, 0.01)) == {4, 5}
    assert sum(first(48, 24, 0.001)) == 2000
    assert first(3, 50, 0.01) == [2, 2, 2]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_frame_is_forgotten_once_it_is_written(tmp_path, suffix):
    """As many as 40 would make a film that outgrows the memory; the bytes of the file grow in the meantime."""
    alive, most, sizes = set(), 0, []

    def noted(count):
        nonlocal most
        for i in range(count):
            frame = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(i))
            alive.add(i)
            weakref.finalize(frame, alive.discard, i)
            most = max(most, len(alive))
            sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
            yield frame

    write_film(noted(40), tmp_path / f"a{suffix}", 10)
    assert most <= 2
    assert sizes[-1] > 20 * 1000  # of 40 frames of noise, at 3 kB or more each
    with Image.open(tmp_path / f"a{suffix}") as film:
        assert film.n_frames == 40


def test_a_gif_is_what_pillow_makes_of_all_frames_at_once(tmp_path):
    moving = [torch.full((32, 48, 3), 0.9) for _ in range(6)]
    for i in (1, 2, 4, 5):  # a square that moves, and stands still for one frame
        moving[i][4 : 4 + 3 * i, 8:20] = torch.tensor([0.1 * i, 0.4, 0.7])
    moving[3] = moving[2]
    write_film(iter(moving), tmp_path / "ours.gif", 24, METADATA)
    pictures = [Image.fromarray(to_uint8(frame)) for frame in moving]
    durations = [10 * n for n in islice(frame_durations(24, 0.01), 6)]
    options = {"loop": 0, "optimize": False, "disposal": 1, "comment": json.dumps(METADATA).encode("ascii")}
    pictures[0].save(tmp_path / "pillow.gif", save_all=True, append_images=pictures[1:], duration=durations, **options)
    assert (tmp_path / "ours.gif").read_bytes() == (tmp_path / "pillow.gif").read_bytes()


def test_a_webp_shows_its_frames_as_pillow_compresses_them(tmp_path):
    write_film(frames(), tmp_path / "a.webp", 24, METADATA)
    film = Image.open(tmp_path / "a.webp")
    durations = []
    for frame, picture in zip(frames(), ImageSequence.Iterator(film)):
        still = BytesIO()
        Image.fromarray(to_uint8(frame)).save(still, format="WEBP", quality=90, method=4)
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), np.array(Image.open(still).convert("RGB")))
        durations.append(picture.info["duration"])
    assert durations == [42, 41, 42, 42, 41]
    content = (tmp_path / "a.webp").read_bytes()
    assert int.from_bytes(content[4:8], "little") == len(content) - 8


def test_contact_sheet():
    pictures = torch.arange(5.0)[:, None, None, None].expand(5, 2, 3, 3) / 10
    sheet = contact_sheet(pictures, 2)
    assert sheet.shape == (6, 6, 3)
    torch.testing.assert_close(sheet[::2, ::3, 0], torch.tensor([[0, 0.1], [0.2, 0.3], [0.4, 1]]))
    assert torch.equal(sheet, contact_sheet(list(pictures), 2))


def test_views_are_rendered_one_at_a_time(monkeypatch):
    rendered = []
    whole = media.render
    monkeypatch.setattr(media, "render", lambda g, one, **more: rendered.append(len(one)) or whole(g, one, **more))
    scene = initial_shape("sphere", 50, torch.Generator().manual_seed(0))
    cameras, color = turntable(3, 32), (0.2, 0.4, 0.6)
    views = render_views(scene, cameras, color, "torch")
    first = next(views)
    assert rendered == [1]
    images = torch.stack([first, *views])
    expected = whole(scene, cameras, backgrounds=torch.tensor(color).expand(3, 3), depth=True, backend="torch")
    torch.testing.assert_close(images, expected.colors.clamp(0, 1).detach())
    outputs = list(render_outputs(scene, cameras, torch.tensor(color), "torch", depth=True))
    torch.testing.assert_close(torch.cat([o.expected_depths for o in outputs]), expected.expected_depths.detach())
    assert rendered == [1] * 6


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


MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}
"""Weights of red and blue in luma, by the number of the matrix (ITU-T H.273)."""
PATCHES = [(0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.15, 0.2, 0.9), (0.9, 0.9, 0.1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)]


def by_its_tags(frame):
    """The colour in the middle of a decoded frame, by the equations of the matrix that it names."""
    y, u, v = (
        np.frombuffer(bytes(p), np.uint8).reshape(-1, p.line_size)[p.height // 2, p.width // 2] / 1
        for p in frame.planes
    )
    red, blue = MATRICES[int(frame.colorspace)]
    y, u, v = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return r, (y - red * r - blue * b) / (1 - red - blue), b


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(64, 32, 6), (512, 512, 6), (1024, 576, 6), (1280, 720, 1), (64, 640, 1), (1280, 64, 1)],
)
def test_films_have_the_colours_that_their_tags_say(tmp_path, width, height, matrix):
    path = tmp_path / "a.mp4"
    write_film((torch.tensor(c).expand(height, width, 3) for c in PATCHES), path, 10)
    with av.open(str(path)) as film:
        decoded = list(film.decode(film.streams.video[0]))
    assert len(decoded) == len(PATCHES)
    for frame, color in zip(decoded, PATCHES):
        tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
        assert tuple(map(int, tags)) == (matrix, 1, 1, 1)
        np.testing.assert_allclose(by_its_tags(frame), color, atol=0.01)
