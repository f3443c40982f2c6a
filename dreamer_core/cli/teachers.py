"""Teachers of several runs in a row: loaded once, and kept while the next run asks for the same."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import torch

from ..prompts import PromptConfig, ViewPrompts, encode_prompts
from .initial import draws_views

if TYPE_CHECKING:
    from ..teachers.sdxl.loading import DiffusersSDXL

WHICH = ("model", "vae", "tokenizer", "lora", "multiview", "parameterization", "dtype", "vae_dtype", "compile")
"""Options that decide which teacher it is."""


class Teachers:
    """Gives the teacher that a run's options name, and with `keep` remembers the last one.

    A kept teacher's text encoders wait in the machine's memory between prompts; otherwise they are freed.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.loads = 0
        """How often one was loaded."""
        self._key: Any = None
        self._teacher: DiffusersSDXL | None = None

    def get(self, args: argparse.Namespace, device: torch.device) -> DiffusersSDXL:
        """The teacher. Errors: InputError."""
        from .generate import load_teacher

        key = (repr([getattr(args, name) for name in WHICH]), str(device), draws_views(args))
        if self._teacher is None or key != self._key:
            self._teacher = None  # before the next one is loaded: both may not fit
            teacher = load_teacher(args, device)
            self.loads += 1
            if not self.keep:
                return teacher
            self._teacher, self._key = teacher, key
        return self._teacher

    def encode(self, teacher: DiffusersSDXL, *prompts: PromptConfig) -> list[ViewPrompts]:
        """The prompts of a run; after it the text encoders take no memory of a GPU."""
        if not self.keep:
            encoded = [encode_prompts(teacher, prompt) for prompt in prompts]
            teacher.release_text_encoders()
            return encoded
        teacher.place_text_encoders(teacher.device)
        try:
            return [encode_prompts(teacher, prompt) for prompt in prompts]
        finally:
            teacher.place_text_encoders("cpu")
