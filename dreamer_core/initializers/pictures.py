"""Textures: any picture that Pillow opens as 8-bit RGBA, its size known before it is decoded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..formats.bounds import require_memory

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

log = logging.getLogger(__name__)

MEMORY = 12
"""Bytes per pixel while it is decoded."""


def eight_bits(image: Picture) -> Picture:
    """The picture; grey of 16 bits or in floats over [0, 1] rounded to 8 bits, where Pillow would cut it off at 255."""
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    grey = np.asarray(image, dtype=np.float64) / (257.0 if image.mode.startswith("I") else 1 / 255)
    return Image.fromarray(np.clip(np.round(np.nan_to_num(grey)), 0, 255).astype(np.uint8))


def decoded(file: IO[bytes], name: str, path: Path, field: str) -> NDArray[np.uint8] | None:  # [H, W, 4]
    """The pixels; None, with a line, where it is no picture. Errors: InputError for one beyond the free memory."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            require_memory(MEMORY * image.width * image.height, path, field, f"make its texture {name} smaller")
            return np.asarray(eight_bits(image).convert("RGBA"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose text names an address in memory
        reason = "no picture" if unknown else (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        log.warning("%s: its texture %r cannot be read (%s); read without", path, name, reason)
        return None
