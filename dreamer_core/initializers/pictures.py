"""Textures: any picture that Pillow opens as 8-bit RGBA, its size known before it is decoded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..formats.bounds import require_memory

log = logging.getLogger(__name__)

MEMORY = 12
"""Bytes per pixel while it is decoded."""


def decoded(file: IO[bytes], name: str, path: Path, field: str) -> NDArray[np.uint8] | None:  # [H, W, 4]
    """The pixels; None, with a line, where it is no picture. Errors: InputError for one beyond the free memory."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            require_memory(MEMORY * image.width * image.height, path, field, f"make its texture {name} smaller")
            if image.mode.startswith(("I", "F")):  # 16 bits of grey, which Pillow would cut off at 255
                grey = np.asarray(image, dtype=np.float64) / (257.0 if image.mode.startswith("I") else 1 / 255)
                image = Image.fromarray(np.clip(np.round(grey), 0, 255).astype(np.uint8))
            return np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        log.warning("%s: its texture %r cannot be read (%s); read without", path, name, reason)
        return None
