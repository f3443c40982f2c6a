"""Animated GIF and WebP, written picture by picture: two are in memory, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a picture, in pixels."""


def frame_durations(fps: int, unit: float) -> Iterator[int]:
    """How long one frame after another is shown, in whole units of `unit` seconds; n of them add up to n / fps."""
    for i in count():
        yield round((i + 1) / fps / unit) - round(i / fps / unit)


def write_gif_frames(pictures: Iterable[Image], file: BinaryIO, fps: int, comment: bytes = b"") -> int:
    """An endless GIF of RGB pictures, each with its own 256 colours; their number.

    Pillow's `save_all` keeps every frame until the last one has come; this does the same with two.
    """
    from PIL.GifImagePlugin import getdata, getheader

    frames = 0
    for picture, box, hundredths in _changes(pictures, fps):
        if frames == 0:
            file.writelines(getheader(picture, info={"loop": 0, "comment": comment})[0])
        part, colors = (picture.crop(box), True) if frames else (picture, False)  # the header has the first one's
        shown = {"duration": 10 * hundredths, "disposal": 1, "include_color_table": colors}
        file.writelines(getdata(part, box[:2], **shown))
        frames += 1
    if frames:
        file.write(b";")
    return frames


def _changes(pictures: Iterable[Image], fps: int) -> Iterator[tuple[Image, Box, int]]:
    """Pictures in 256 colours, which part of each differs from the last one, and for how many 1/100 s it is shown."""
    from PIL import Image, ImageChops

    last: tuple[Image.Image, Image.Image, Box] | None = None
    shown = 0
    for picture, duration in zip(pictures, frame_durations(fps, 0.01)):
        few = picture.convert("P", palette=Image.Palette.ADAPTIVE)
        rgb = few.convert("RGB")
        box = (0, 0, *few.size) if last is None else ImageChops.difference(rgb, last[1]).getbbox()
        if last is not None and box is not None:
            yield last[0], last[2], shown
            shown = 0
        if box is not None:
            last = few, rgb, box
        shown += duration
    if last is not None:
        yield last[0], last[2], shown


def _number(value: int) -> bytes:
    """Three bytes, the lowest first."""
    return value.to_bytes(3, "little")


def _chunk(name: bytes, content: bytes) -> bytes:
    """One part of a RIFF file."""
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


WEBP_ANIMATED, WEBP_EXIF = 0x02, 0x08
WEBP_NO_BLENDING = 0x02


def write_webp_frames(pictures: Iterable[Image], file: BinaryIO, fps: int, exif: Exif) -> int:
    """An endless animated WebP of RGB pictures (quality 90); their number.

    Pillow's `save_all` and FFmpeg keep all of them until the last has come. Here Pillow compresses each as a picture of
    its own, which goes into the container at once (https://developers.google.com/speed/webp/docs/riff_container).
    """
    frames, described = 0, exif.tobytes() if exif else b""
    for picture, milliseconds in zip(pictures, frame_durations(fps, 0.001)):
        size = b"".join(_number(side - 1) for side in picture.size)
        if frames == 0:
            flags = WEBP_ANIMATED | (WEBP_EXIF if described else 0)
            file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size))
            file.write(_chunk(b"ANIM", bytes(4) + bytes(2)))  # no background, for ever
        still = BytesIO()
        picture.save(still, format="WEBP", quality=90, method=4)
        frame = _number(0) + _number(0) + size + _number(milliseconds) + bytes([WEBP_NO_BLENDING])
        file.write(_chunk(b"ANMF", frame + still.getvalue()[12:]))  # behind RIFF, size, WEBP
        frames += 1
    if frames:
        if described:
            file.write(_chunk(b"EXIF", described))
        length = file.tell() - 8
        file.seek(4)
        file.write(length.to_bytes(4, "little"))
    return frames
