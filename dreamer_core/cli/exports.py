"""`--export`: what a run leaves beside splat.ply and turntable.mp4, and what its files say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import __version__
from ..errors import InputError
from ..formats import require_packages, save_gaussians
from ..gaussians import Gaussians
from ..media import write_film
from ..optimize.identity import plain
from .run_folder import EXPORTS, SPLATS

ANIMATION_VIEWS, ANIMATION_SIZE = 48, 384
"""Frames and pixels per side of an animated picture, which weighs more than a film does."""


def parse_exports(texts: Sequence[str]) -> tuple[str, ...]:
    """The formats of every `--export A,B`, each once. Errors: InputError for an unknown one, or a missing package."""
    names: list[str] = []
    for name in (part.strip().lower().removeprefix(".") for text in texts for part in text.split(",")):
        if name not in EXPORTS:
            raise InputError("--export", f"one or more of {', '.join(EXPORTS)}, with commas", name or "nothing")
        require_packages(f".{name}", "--export")
        if name not in names:
            names.append(name)
    return tuple(names)


def recorded(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """What goes into the files of a run: prompt, seed, steps made, settings, names of the models, version."""
    config = plain(settings["config"].recipe)
    prompt, options = settings["prompt"], settings["options"]
    return {
        "generator": "Dreamer XL",
        "version": __version__,
        "prompt": prompt.prompt,
        "negative": prompt.negative,
        "seed": config["seed"],
        "steps": steps,
        "model": Path(options["model"]).name if options["model"] else "starter",
        "loras": [Path(text).name for text in options["lora"]],
        "settings": config,
    }


def in_film(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same under one name, if there is any: `prompt` in a film is the graph for ComfyUI."""
    return {"dreamer-xl": metadata} if metadata else {}


def write_exports(
    names: Sequence[str],
    folder: Path,
    gaussians: Gaussians,
    metadata: dict[str, Any],
    frames: Callable[[int, int], Iterator[Tensor]],
) -> Iterator[Path]:
    """Write one file after another into `folder`; `frames(views, size)` renders a turntable."""
    for name in names:
        path = folder / EXPORTS[name]
        if name in SPLATS:
            save_gaussians(gaussians, path, metadata=metadata, field="--export")
        else:
            write_film(frames(ANIMATION_VIEWS, ANIMATION_SIZE), path, 12, in_film(metadata))
        yield path
