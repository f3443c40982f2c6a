"""Pictures and films of a scene: contact sheets and turntables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .cameras import Cameras
from .files import write_atomically
from .gaussians import Gaussians
from .rendering import render


def render_views(
    gaussians: Gaussians, cameras: Cameras, background: tuple[float, float, float], renderer: str = "auto"
) -> Iterator[Tensor]:
    """Images [H, W, 3] in [0, 1] on the CPU, one camera at a time."""
    color = torch.tensor(background, device=gaussians.device)[None]
    cameras = cameras.to(gaussians.device)
    with torch.no_grad():
        for i in range(len(cameras)):
            one = Cameras(
                cameras.viewmats[i : i + 1],
                cameras.Ks[i : i + 1],
                cameras.width,
                cameras.height,
                cameras.azimuth[i : i + 1],
                cameras.elevation[i : i + 1],
                cameras.fov[i : i + 1],
            )
            yield render(gaussians, one, backgrounds=color, backend=renderer).colors[0].clamp(0, 1).cpu()


def to_uint8(image: Tensor) -> np.ndarray:
    """Display image [H, W, 3] in [0, 1] as bytes, rounded."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def contact_sheet(images: list[Tensor], columns: int = 4) -> Tensor:
    """Images [H, W, 3] of one size side by side, row by row; missing places are white."""
    rows = -(-len(images) // columns)
    blank = torch.ones_like(images[0])
    padded = images + [blank] * (rows * columns - len(images))
    return torch.cat([torch.cat(padded[r * columns : (r + 1) * columns], dim=1) for r in range(rows)], dim=0)


def write_png(image: Tensor, path: Path) -> None:
    """Write an image [H, W, 3] in [0, 1], atomically."""
    from PIL import Image

    write_atomically(path, lambda temporary: Image.fromarray(to_uint8(image)).save(temporary))


def write_mp4(frames: Iterable[Tensor], path: Path, fps: int = 24) -> None:
    """Write images [H, W, 3] in [0, 1] with even sides as H.264 through PyAV, atomically."""
    import av

    def write(temporary: Path) -> None:
        with av.open(str(temporary), "w") as container:
            stream = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "18"})
                    stream.height, stream.width = frame.shape[:2]
                    stream.pix_fmt = "yuv420p"
                picture = av.VideoFrame.from_ndarray(to_uint8(frame), format="rgb24")
                container.mux(stream.encode(picture))
            if stream is None:
                raise ValueError("write_mp4 needs at least one frame")
            container.mux(stream.encode(None))

    write_atomically(path, write)
