"""Pictures and films of a scene: contact sheets and turntables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .animations import write_gif_frames, write_webp_frames
from .cameras import Cameras
from .errors import InputError
from .files import write_atomically
from .gaussians import Gaussians
from .rendering import RenderOutput, render

if TYPE_CHECKING:
    from PIL import Image


def render_outputs(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Sequence[float] | Tensor,  # [3] in [0, 1]
    renderer: str = "auto",
    *,
    depth: bool = False,
) -> Iterator[RenderOutput]:
    """One view after another without gradients, so that memory stays small and whoever asks can stop in between."""
    for i in range(len(cameras)):
        one = cameras.at([i])
        with torch.inference_mode(False), torch.no_grad():
            color = torch.as_tensor(background, device=gaussians.device).clone()[None]
            output = render(gaussians.detach(), one, backgrounds=color, depth=depth, backend=renderer)
        yield output


def render_views(
    gaussians: Gaussians, cameras: Cameras, background: Sequence[float] | Tensor, renderer: str = "auto"
) -> Iterator[Tensor]:
    """Images [H, W, 3] in [0, 1] on the CPU, one camera at a time."""
    for output in render_outputs(gaussians, cameras, background, renderer):
        yield output.colors[0].clamp(0, 1).cpu()


def to_uint8(image: Tensor) -> np.ndarray:
    """Display image [H, W, 3] in [0, 1] as bytes, rounded."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def contact_sheet(images: Sequence[Tensor] | Tensor, columns: int = 4) -> Tensor:
    """Images [H, W, 3] of one size side by side, row by row; missing places are white."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = images[0].new_ones(rows * height, columns * width, 3)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return sheet


def write_png(image: Tensor, path: Path) -> None:
    """Write an image [H, W, 3] in [0, 1], atomically."""
    from PIL import Image

    write_atomically(path, lambda temporary: Image.fromarray(to_uint8(image)).save(temporary))


Metadata = Mapping[str, Any]
"""Name -> a value that JSON can hold; films keep it as ComfyUI's own nodes do, so that dropping one there opens the
graph under `prompt` and `workflow`."""


HD_WIDTH, HD_HEIGHT = 1280, 577
"""From either of these on, films are BT.709; smaller ones are BT.601. Players that look at no tags guess so."""
BT709, BT601, LIMITED = 1, 6, 1
"""Numbers of H.264's tags (ITU-T H.273): matrix, primaries and transfer of HD, the matrix of SD, luma of 16 to 235."""


def write_mp4(frames: Iterable[Tensor], path: Path, fps: int = 24, metadata: Metadata | None = None) -> None:
    """Write images [H, W, 3] in [0, 1] with even sides as H.264 through PyAV, atomically; metadata as its tags.

    Colours are converted by the matrix that the film is tagged with: BT.709 for HD sizes, BT.601 below. Primaries and
    transfer are those of BT.709 at every size, for sRGB has the same.
    """
    import av
    from av.video.reformatter import ColorRange, Colorspace

    def write(temporary: Path) -> None:
        with av.open(str(temporary), "w", options={"movflags": "use_metadata_tags"}) as container:
            container.metadata.update(_json_texts(metadata))
            stream, hd = None, False
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "18"})
                    stream.height, stream.width = frame.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    hd = frame.shape[1] >= HD_WIDTH or frame.shape[0] >= HD_HEIGHT
                    context = stream.codec_context
                    context.colorspace, context.color_range = BT709 if hd else BT601, LIMITED
                    context.color_primaries = context.color_trc = BT709
                picture = av.VideoFrame.from_ndarray(to_uint8(frame), format="rgb24").reformat(
                    format="yuv420p",
                    src_color_range=ColorRange.JPEG,
                    dst_colorspace=Colorspace.ITU709 if hd else Colorspace.ITU601,
                    dst_color_range=ColorRange.MPEG,
                )
                container.mux(stream.encode(picture))
            if stream is None:
                raise ValueError("write_mp4 needs at least one frame")
            container.mux(stream.encode(None))

    write_atomically(path, write)


def _json_texts(metadata: Metadata | None) -> dict[str, str]:
    return {name: json.dumps(value, default=str) for name, value in (metadata or {}).items()}


def _write_animation(
    frames: Iterable[Tensor], path: Path, write_frames: Callable[[Iterator[Image.Image], BinaryIO], int]
) -> None:
    from PIL import Image

    pictures = (Image.fromarray(to_uint8(frame)) for frame in frames)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            if not write_frames(pictures, file):
                raise ValueError("an animation needs at least one frame")

    write_atomically(path, write)


EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F
"""Tags under which ComfyUI's animated WebP keeps `prompt`, and, from here down, everything else."""


def write_webp(frames: Iterable[Tensor], path: Path, fps: int = 24, metadata: Metadata | None = None) -> None:
    """Write images [H, W, 3] in [0, 1] as an endless animated WebP (Pillow, quality 90), atomically; metadata as EXIF
    entries `name:JSON`."""
    from PIL import Image

    exif, tag = Image.Exif(), EXIF_MAKE
    for name, text in _json_texts(metadata).items():
        exif[EXIF_MODEL if name == "prompt" else tag] = f"{name}:{text}"
        tag -= name != "prompt"
    _write_animation(frames, path, lambda pictures, file: write_webp_frames(pictures, file, fps, exif))


def write_gif(frames: Iterable[Tensor], path: Path, fps: int = 24, metadata: Metadata | None = None) -> None:
    """Write images [H, W, 3] in [0, 1] as an endless GIF of 256 colours a frame (Pillow), atomically; up to 50 fps;
    metadata as a comment, one JSON object."""
    comment = json.dumps(dict(metadata), default=str).encode("ascii") if metadata else b""
    _write_animation(frames, path, lambda pictures, file: write_gif_frames(pictures, file, fps, comment))


FILMS: dict[str, Callable[[Iterable[Tensor], Path, int, Metadata | None], None]] = {
    ".mp4": write_mp4,
    ".webp": write_webp,
    ".gif": write_gif,
}
"""Suffix of a film -> what writes it."""

GIF_FPS_AT_MOST = 50
"""A GIF counts hundredths of a second, and browsers slow down what is shown for less than two of them."""


def check_film(suffix: str, resolution: int, fps: int, names: tuple[str, str]) -> None:
    """Errors: InputError, under `names` of resolution and fps, for what the kind of film cannot hold."""
    if suffix == ".mp4" and resolution % 2:
        raise InputError(names[0], "an even number of pixels for an MP4", resolution)
    if suffix == ".gif" and fps > GIF_FPS_AT_MOST:
        raise InputError(names[1], f"at most {GIF_FPS_AT_MOST} frames per second for a GIF", fps)


def write_film(frames: Iterable[Tensor], path: Path, fps: int = 24, metadata: Metadata | None = None) -> None:
    """Write images [H, W, 3] in [0, 1] as the suffix says: .mp4, .webp or .gif; atomically."""
    FILMS[path.suffix.lower()](frames, path, fps, metadata)
