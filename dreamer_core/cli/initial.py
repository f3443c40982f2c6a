"""The options that say where the Gaussians start, and what they make."""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..gaussians import Gaussians
from ..initializers import FITTED_SIZE, SHAPES, START_FILES, UPS, gaussians_from_file, initial_shape
from ..initializers.drawn_views import DrawnViewsConfig
from ..initializers.shap_e import ShapEConfig, shap_e_gaussians
from ..initializers.start_files import is_splat
from ..optimize import Preset
from ..optimize.randomness import step_generator
from ..settings import Setting, own_settings
from ..teachers.sdxl.prompt_tokens import plain_words

OPACITY = 0.1
"""Of Gaussians around points, as published."""
MOST = 20_000_000
"""Gaussians that a run may begin with."""

VIEWS = "views"
"""Of --init: Gaussians fitted to what a multi-view adapter draws."""
DRAWN = own_settings(DrawnViewsConfig)


def draws_views(args: argparse.Namespace) -> bool:
    """Whether the teacher draws the start; it needs its decoder then. Commands without --init never do."""
    return getattr(args, "init", None) == VIEWS


def drawn_option(setting: Setting) -> str:
    """--init-sampling-steps of sampling_steps."""
    return f"--init-{setting.field.replace('_', '-')}"


def add_init_options(parser: argparse.ArgumentParser) -> None:
    """--init, --count, --init-*, --shap-e and --shap-e-*."""
    files = ", ".join(START_FILES)
    parser.add_argument(
        "--init",
        metavar="|".join([*SHAPES, VIEWS, "FILE"]),
        help=f"default: sphere; {VIEWS}: what --multiview draws; a file is a splat, points or a mesh: {files}",
    )
    parser.add_argument("--count", type=int, help="Gaussians to start with, of a splat at most (default: the preset's)")
    for setting in DRAWN:
        about = f"of {VIEWS}: {setting.knob.tip} (default: {setting.default:g})"
        parser.add_argument(drawn_option(setting), type=setting.number or str, help=about)
    parser.add_argument("--init-up", choices=UPS, help="axis of the file that is up (default: auto, by its format)")
    parser.add_argument("--init-yaw", type=float, help="degrees; the side at this azimuth becomes the front (90: +X)")
    parser.add_argument(
        "--init-size",
        type=float,
        help=f"radius in world units (default: the preset's for shapes, {FITTED_SIZE} for points; a splat stays as is)",
    )
    parser.add_argument(
        "--init-opacity", type=float, help=f"of the new Gaussians (default: the preset's for shapes, else {OPACITY})"
    )
    parser.add_argument(
        "--shap-e", metavar="FOLDER_OR_ID", help="start from Shap-E's shape: a diffusers folder, or openai/shap-e"
    )
    parser.add_argument("--shap-e-prompt", help='a few words for Shap-E, e.g. "a mug" (default: PROMPT)')
    parser.add_argument(
        "--shap-e-cfg", type=float, help=f"its guidance scale (default: {ShapEConfig.guidance_scale:g})"
    )
    parser.add_argument("--shap-e-steps", type=int, help=f"its steps (default: {ShapEConfig.steps})")


def start(
    args: argparse.Namespace, seed: int, preset: Preset, device: torch.device, resume: bool = False
) -> tuple[Gaussians | None, dict[str, Any]]:
    """The Gaussians that the options ask for, the preset's where they say nothing, and what identifies them.

    Shap-E is not run again where a run is resumed, and gives None there. Errors: InputError.
    """
    try:
        _check(args)
        if args.shap_e is not None:
            return _shap_e(args, seed, preset.count, device, resume)
        args.init = args.init or "sphere"
        gaussians = _shape(args, seed, preset) if args.init in SHAPES else _file(args, seed, preset.count)
    except InputError as error:
        field = error.field if error.field.startswith("--") else f"--{error.field.replace(' ', '-')}"
        raise InputError(field, error.expected, error.got, error.remedy) from error
    kind = args.init if args.init in SHAPES else "file"  # wherever it lies, its content decides
    return gaussians, {"init": kind, "init_sha256": content_hash(gaussians), "count": len(gaussians)}


def drawn_views(args: argparse.Namespace, preset: Preset) -> tuple[DrawnViewsConfig, int, dict[str, Any]]:
    """How `--init views` draws and fits, how many Gaussians, and what identifies them. Errors: InputError."""
    _check(args)
    if args.multiview is None:
        raise InputError("--init", "--multiview FILE beside it: its views are the start", VIEWS)
    for name in ("up", "yaw", "size", "opacity"):
        value = getattr(args, f"init_{name}")
        if value is not None:
            raise InputError(f"--init-{name}", f"none beside --init {VIEWS}, which stands as it is drawn", value)
    given = {s.field: getattr(args, f"init_{s.field}") for s in DRAWN}
    count = preset.count if args.count is None else args.count
    if count < 4:
        raise InputError("--count", "at least 4 Gaussians", count)
    config = DrawnViewsConfig(**{name: value for name, value in given.items() if value is not None})
    return config, count, {"init": VIEWS, "views": asdict(config), "count": count}


def _check(args: argparse.Namespace) -> None:
    """Errors: InputError for options that do not go together, and a number out of bounds."""
    for setting in DRAWN:
        value = getattr(args, f"init_{setting.field}")
        if value is not None:
            setting.check(value, drawn_option(setting))
            if args.init != VIEWS:
                raise InputError(drawn_option(setting), f"--init {VIEWS} beside it", args.init or "none")
    if args.count is not None and args.count > MOST:
        raise InputError("--count", f"at most {MOST} Gaussians", args.count)
    if args.shap_e is None:
        for name in ("prompt", "cfg", "steps"):
            if getattr(args, f"shap_e_{name}") is not None:
                raise InputError(f"--shap-e-{name}", "--shap-e beside it", "none")
        if args.init in (None, *SHAPES):
            for name in ("up", "yaw"):
                value = getattr(args, f"init_{name}")
                if value is not None:
                    raise InputError(f"--init-{name}", "a file or Shap-E to turn", f"{value} for a plain shape")
    elif args.init is not None:
        raise InputError("--shap-e", "no --init beside it", args.init)


def _shape(args: argparse.Namespace, seed: int, preset: Preset) -> Gaussians:
    return initial_shape(
        args.init,
        preset.count if args.count is None else args.count,
        step_generator(seed, 0, "init"),
        size=preset.size if args.init_size is None else args.init_size,
        opacity=preset.opacity if args.init_opacity is None else args.init_opacity,
    )


def _file(args: argparse.Namespace, seed: int, points: int) -> Gaussians:
    path = Path(args.init).expanduser()
    if path.suffix.lower() not in START_FILES:
        raise InputError(
            "--init", f"one of {', '.join([*SHAPES, VIEWS])} or a file ({', '.join(START_FILES)})", args.init
        )
    if args.init_opacity is not None and is_splat(path):
        raise InputError("--init-opacity", "none beside a splat, which has its own", args.init_opacity)
    return gaussians_from_file(
        path,
        seed=seed,
        count=args.count,
        points=points,
        size=args.init_size,
        opacity=OPACITY if args.init_opacity is None else args.init_opacity,
        up=args.init_up or "auto",
        yaw=args.init_yaw or 0.0,
        field="--init",
    )


def _shap_e(
    args: argparse.Namespace, seed: int, points: int, device: torch.device, resume: bool
) -> tuple[Gaussians | None, dict[str, Any]]:
    from tqdm import tqdm

    args.init = "shap-e"
    config = ShapEConfig(
        args.shap_e,
        plain_words(args.prompt) if args.shap_e_prompt is None else args.shap_e_prompt,
        ShapEConfig.guidance_scale if args.shap_e_cfg is None else args.shap_e_cfg,
        ShapEConfig.steps if args.shap_e_steps is None else args.shap_e_steps,
        seed,
    )
    placement: dict[str, Any] = {
        "size": FITTED_SIZE if args.init_size is None else args.init_size,
        "opacity": OPACITY if args.init_opacity is None else args.init_opacity,
        "up": args.init_up or "auto",
        "yaw": args.init_yaw or 0.0,
    }
    count = points if args.count is None else args.count
    settings = {"init": args.init, "shap_e": {**asdict(config), **placement}, "count": count}
    if resume:
        return None, settings
    print(f"Making the initial shape with {args.shap_e} ...", file=sys.stderr, flush=True)
    with tqdm(total=0, desc="Shap-E", unit="step", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def say(text: str) -> None:
            bar.write(text, file=sys.stderr)

        return shap_e_gaussians(config, count, device, announce=say, on_step=show, **placement), settings


def content_hash(gaussians: Gaussians) -> str:
    """A hash of every number of a scene."""
    digest = hashlib.sha256()
    for _, value in gaussians.tensors():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
