"""ComfyUI's CLIP and CONDITIONING -> the core's Conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...dreamer_core.errors import InputError
from ...dreamer_core.teachers.teacher import Conditioning

SIZE_KEYS = ("width", "height", "crop_w", "crop_h", "target_width", "target_height")
"""What CLIPTextEncodeSDXL sets; everything else about a CONDITIONING changes what a single evaluation means."""


class HostTextEncoder:
    """A core TextEncoder on a ComfyUI CLIP; prompt weights and embeddings work as in ComfyUI."""

    def __init__(self, clip: Any) -> None:
        if clip is None:
            raise InputError("clip", "a CLIP", "none", "this checkpoint holds no text encoders: load them apart")
        self._clip = clip

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of each prompt, in order."""
        return Conditioning.cat([self._encode(text) for text in prompts])

    def _encode(self, text: str) -> Conditioning:
        scheduled = self._clip.encode_from_tokens_scheduled(self._clip.tokenize(text), show_pbar=False)
        return from_comfy(scheduled, "clip")[0]


def from_comfy(conditioning: list, field: str) -> tuple[Conditioning, dict[str, int]]:
    """Embeddings of a CONDITIONING, and the sizes it sets.

    Errors: InputError where it has several entries, no pooled embedding, or options such as a ControlNet, an area, a
    mask, a timestep range or hooks.
    """
    if len(conditioning) != 1:
        raise InputError(field, "a CONDITIONING with one entry", f"{len(conditioning)} entries", "do not combine")
    tokens, options = conditioning[0]
    pooled = options.get("pooled_output")
    if pooled is None:
        raise InputError(field, "SDXL text conditioning", "one without a pooled embedding", "use SDXL's CLIP")
    foreign = sorted(k for k, v in options.items() if k not in (*SIZE_KEYS, "pooled_output") and v is not None)
    if foreign:
        raise InputError(
            field, "plain text conditioning", f"one with {', '.join(foreign)}", "these have no meaning for 3D views"
        )
    sizes = {k: int(options[k]) for k in SIZE_KEYS if k in options}
    return Conditioning(tokens.float().cpu(), pooled.float().cpu()), sizes
