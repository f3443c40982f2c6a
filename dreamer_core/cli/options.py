"""Options that several commands share, and their checks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from ..errors import InputError
from ..rendering import RENDERER_NAMES, RENDERERS, resolve_backend


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """--device and --renderer."""
    kinds = ", ".join(f"{renderer.name} ({renderer.purpose})" for renderer in RENDERERS)
    parser.add_argument(
        "--device",
        "--devices",
        default="auto",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1, mps (default: auto); making an object takes several with commas, as "
        "cuda:0,cuda:1, which share the views of every step",
    )
    parser.add_argument(
        "--renderer",
        choices=RENDERER_NAMES,
        default="auto",
        help=f"rasterizer; auto (default) is the first that works of: {kinds}",
    )


def resolve_device(name: str) -> torch.device:
    """The torch device of `--device`. Errors: InputError where it is unknown or not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("--device", "auto, cpu, cuda, cuda:N or mps", name) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            remedy = "use --device cpu, or install a CUDA build of torch and a driver"
            raise InputError("--device", "a CUDA device that torch can use", f"{name} ({count} found)", remedy)
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("--device", "an available device", "mps, which torch cannot use here")
    elif device.type != "cpu":
        raise InputError("--device", "auto, cpu, cuda, cuda:N or mps", name)
    return device


def check_renderer(name: str, device: torch.device) -> str:
    """The backend that `--renderer` means on `device`. Errors: InputError where it cannot work."""
    try:
        return resolve_backend(name, device)
    except InputError as error:
        raise InputError("--renderer", error.expected, error.got, error.remedy) from error


def check_writable(path: Path, option: str = "--out") -> None:
    """Errors: InputError where `path` could not be created or written to; creates nothing."""
    parent = path.absolute()
    try:
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
        if not parent.exists():
            raise InputError(option, "a place that exists", f"{path}, but there is no {parent}")
    except OSError as error:
        raise InputError(option, "a place that can be reached", f"{path} ({error.strerror})") from error
    if parent != path.absolute() and not parent.is_dir():
        raise InputError(option, "a path in a folder", f"{path}, but {parent} is a file")
    if not os.access(parent, os.W_OK):
        raise InputError(option, "a place that can be written to", f"{path}, but {parent} is read-only")


def parse_color(text: str) -> tuple[float, float, float]:
    """white, black, grey or R,G,B in [0, 1]."""
    named = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}
    if text in named:
        return named[text]
    try:
        r, g, b = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError("--background", "white, black, grey or R,G,B in [0, 1]", text) from error
    if not all(0 <= v <= 1 for v in (r, g, b)):
        raise InputError("--background", "white, black, grey or R,G,B in [0, 1]", text)
    return r, g, b
