"""`preview PROMPT`: what a teacher draws from each direction, if it tells them apart, and what a run would cost."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import InputError
from ..gaussians import Gaussians
from ..media import contact_sheet, write_png
from ..optimize import PRESETS
from ..optimize.apart import views_apart
from ..optimize.cost import measure
from ..optimize.memory import free_bytes
from ..optimize.randomness import step_generator
from ..prompts import encode_prompts
from ..settings import own_settings
from ..teacher_preview import DIRECTIONS, SamplingConfig, draw, findings, recognise
from .generate import add_recipe_options, check_paths, checked, fit_to, load_teacher, prepare, preset_name
from .generate_config import option
from .initial import VIEWS, drawn_views, start
from .options import check_renderer, check_writable, resolve_device
from .own_folder import OUTPUTS, folder_name


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("preview", help="what the teacher draws for a prompt, and what `generate` would cost")
    add_recipe_options(parser)
    parser.epilog = "--steps are those of the run whose cost is estimated; --sampling-steps those of the pictures."
    for setting in own_settings(SamplingConfig):
        about = f"{setting.knob.tip} (default: {setting.default:g})"
        parser.add_argument(option(setting), type=setting.number or str, default=setting.default, help=about)
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="default: outputs/<prompt>-preview.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, compare, time two steps; print what was found, and write the pictures side by side."""
    from tqdm import tqdm

    declared = own_settings(SamplingConfig)
    for setting in declared:
        setting.check(getattr(args, setting.field), option(setting))
    sampling = SamplingConfig(**{setting.field: getattr(args, setting.field) for setting in declared})
    everything = checked(args)
    if everything is None:
        return 0
    config, device = everything.optimization, resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    out = args.out or OUTPUTS / f"{folder_name(args.prompt)}-preview.png"
    if out.suffix.lower() != ".png":
        raise InputError("--out", "a name that ends in .png", out)
    check_writable(out)
    check_paths(args)
    free = free_bytes(device)
    gaussians = _start(args, config.seed, device)
    teacher = load_teacher(args, device, keep_decoder=True)
    config, fit = fit_to(args, config, teacher, say=False)
    sampling = sampling.for_teacher(fit.profile)
    prompts = encode_prompts(teacher, everything.prompt)
    teacher.release_text_encoders()
    prepare(args, teacher, config, device)

    with views_apart(teacher, len(DIRECTIONS), config.resolution, device) as apart:
        with tqdm(total=0, desc="Drawing", bar_format="{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}]") as bar:

            def on_step(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            pictures = draw(
                apart,
                prompts,
                resolution=config.resolution,
                sampling=sampling,
                rescale=fit.rescale_of_pictures(config),
                seed=config.seed,
                on_step=on_step,
            )
        print("Comparing, timing two steps ...", file=sys.stderr, flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_png(contact_sheet(teacher.decode(pictures).cpu()), out)
        recognition = recognise(apart, prompts, pictures, seed=config.seed)
        cost = measure(apart, prompts, config, gaussians.to(device), renderer)
    print(findings(fit, recognition, cost, free))
    print(f"Pictures: {out} ({', '.join(DIRECTIONS)})")
    return 0


def _start(args: argparse.Namespace, seed: int, device: torch.device) -> Gaussians:
    """What a run would start from; as many of the preset's where the teacher would draw them first."""
    preset = PRESETS[preset_name(args)]
    if args.init == VIEWS:
        _, count, _ = drawn_views(args, preset)
        return replace(preset, count=count).start(step_generator(seed, 0, "init"))
    gaussians, _ = start(args, seed, preset, device)
    assert gaussians is not None  # only a resumed run has none
    return gaussians
