"""A turntable as one picture of frames side by side, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

FRAMES, SIZE, QUALITY = 24, 192, 80


def sprite(film: Path) -> str:
    """A WebP as a data URL, [SIZE, FRAMES * SIZE], of evenly spaced frames; empty where the film cannot be read."""
    import av
    from PIL import Image

    try:
        with av.open(str(film)) as container:
            pictures: list[Any] = [frame.to_image() for frame in container.decode(video=0)]
    except (OSError, av.FFmpegError, IndexError):
        return ""
    if not pictures:
        return ""
    sheet = Image.new("RGB", (FRAMES * SIZE, SIZE), "white")
    for i in range(FRAMES):
        sheet.paste(pictures[i * len(pictures) // FRAMES].resize((SIZE, SIZE)), (i * SIZE, 0))
    content = io.BytesIO()
    sheet.save(content, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
