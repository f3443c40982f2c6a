"""`evaluate FILE`: what a splat is worth in numbers, each with its protocol."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from platformdirs import user_cache_path

from ..batch.index import INDEX, write_text
from ..errors import InputError
from ..evaluation import EvaluationConfig, Measure, evaluate, shown
from ..formats import READABLE, load_gaussians, read_metadata
from ..gaussians import Gaussians
from ..optimize.presets import PRESETS, STARTER_SIDES
from ..prompts import PromptConfig, encode_prompts
from ..report.rows import MEASURES, read_rows
from .generate import add_machine_options, add_teacher_options, check_paths, load_teacher, preset_name
from .options import check_renderer, check_writable, resolve_device
from .workshop import ITEM

WEIGHTS = user_cache_path("dreamer-xl") / "metrics"
"""Where CLIP and LPIPS are looked for."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("evaluate", help="what a splat is worth in numbers: direction, CLIP, A-LPIPS ...")
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help=f"splats: {', '.join(READABLE)}; or the folder of a work list",
    )
    parser.add_argument("--prompt", help="what it should be (default: what the file says it was made of)")
    add_teacher_options(parser)
    add_machine_options(parser)
    parser.add_argument("--no-teacher", action="store_true", help="without the measures that ask an SDXL")
    parser.add_argument("--no-networks", action="store_true", help="without CLIP and LPIPS")
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, metavar="DIR", help="folder with CLIP's and LPIPS's weights"
    )
    parser.add_argument("--views", type=int, default=120, help="of the turntable (default: 120, the protocol's)")
    parser.add_argument("--resolution", type=int, default=512, help="of the turntable (default: 512, the protocol's)")
    parser.add_argument(
        "--teacher-resolution", type=int, help="of the views that the teacher judges (default: the preset's)"
    )
    parser.add_argument("--noises", type=int, default=2, help="per view and timestep, for the teacher (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure one file after another; the teacher is loaded once."""
    for name, low in (("views", 2), ("resolution", 16), ("noises", 1)):
        if getattr(args, name) < low:
            raise InputError(f"--{name}", f"at least {low}", getattr(args, name))
    size = args.teacher_resolution or PRESETS[preset_name(args)].config.resolution
    if size % 64 or size < 64:
        raise InputError("--teacher-resolution", "a multiple of 64, at least 64", size)
    if args.json is not None:
        check_writable(args.json, "--json")
    device = resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    places = [place for path in args.files for place in files_of(path)]
    splats = {path: load_gaussians(path) for path in places}
    words = {path: prompt_of(path, args.prompt) for path in splats}
    config = EvaluationConfig(
        args.views, args.resolution, size, args.noises, args.weights.expanduser(), not args.no_networks
    )
    found = measured(args, splats, words, config, device, renderer)
    if args.json is not None:
        content = {str(path): [asdict(m) for m in measures] for path, measures in found.items()}
        write_text(args.json, json.dumps(content, indent=1) + "\n")
    return 0


def files_of(path: Path) -> list[Path]:
    """The file itself, or the splats of a work list's folder that are complete. Errors: InputError."""
    if not (path / INDEX).is_file():
        return [path]
    rows, _ = read_rows(path)
    found = [row.folder / "splat.ply" for row in rows if row.state == "complete"]
    if not found:
        raise InputError("FILE", "a work list with complete objects", f"{path} without one")
    return found


def prompt_of(path: Path, given: str | None) -> str:
    """What the object should be. Errors: InputError where nobody says."""
    prompt = given or read_metadata(path).get("prompt")
    if not prompt:
        raise InputError("--prompt", "what the object should be", f"nothing, and {path} does not say")
    return str(prompt)


def measured(
    args: argparse.Namespace,
    splats: dict[Path, Gaussians],
    words: dict[Path, str],
    config: EvaluationConfig,
    device: torch.device,
    renderer: str,
) -> dict[Path, list[Measure]]:
    """The measures of every file, printed as they are taken."""
    teacher = None
    if not args.no_teacher:
        check_paths(args)
        teacher = load_teacher(args, device)
    found = {}
    for path, gaussians in splats.items():
        sides = STARTER_SIDES if preset_name(args) == "starter" else {}
        prompts = encode_prompts(teacher, PromptConfig(words[path], **sides)) if teacher is not None else None
        print(f"Measuring {path} ...", file=sys.stderr, flush=True)
        found[path] = evaluate(gaussians.to(device), words[path], config, teacher, prompts, renderer)
        print(f"{path}  ({words[path]})\n{shown(found[path])}", flush=True)
        if (path.parent / ITEM).is_file():  # of a work list, whose report shows it
            content = [asdict(measure) for measure in found[path]]
            write_text(path.parent / MEASURES, json.dumps(content, indent=1) + "\n")
    return found
