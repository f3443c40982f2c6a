"""`generate PROMPT`: a prompt becomes a splat, with pictures, a film and a log."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..cameras import CAMERA_PRESETS, with_angles
from ..errors import InputError
from ..optimize import PRESETS, OptimizationState, OptimizeConfig, load_state
from ..optimize.checkpoint import read_metadata
from ..optimize.config import METHOD_DEFAULTS, METHODS, Method
from ..optimize.memory import MODES, MemoryPlan, free_bytes, plan_memory
from ..optimize.overrides import apply_overrides, show
from ..optimize.presets import INITIAL_COUNT
from ..prompts import PromptConfig, encode_prompts
from .exports import parse_exports
from .initial import add_init_options, start
from .options import add_device_options, check_renderer, check_writable, resolve_device
from .run_folder import EXPORTS, RunFolder
from .session import Session
from .settings import GenerateConfig

if TYPE_CHECKING:
    from ..diffusion.sdxl_diffusers import DiffusersSDXL

PACKAGE = Path(__file__).resolve().parents[1]
STARTER_PLACES = (PACKAGE / "starter", PACKAGE.parent / "starter" / "checkpoint")
"""Where the wheel and the repository keep the small SDXL that comes with them."""
METHOD = "guidance.method"
PROMPT_SHOWN = "an object"
"""Stands for the prompt where only settings are printed."""

DTYPES = {"auto": None, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Lora:
    """One `--lora PATH[:WEIGHT]`."""

    path: Path
    weight: float = 1.0

    @staticmethod
    def parse(text: str) -> Lora:
        """PATH or PATH:WEIGHT; a colon that is not followed by a number belongs to the path."""
        path, colon, weight = text.rpartition(":")
        if colon:
            try:
                value = float(weight)
            except ValueError:
                return Lora(Path(text))
            if not math.isfinite(value):
                raise InputError("--lora", "PATH[:WEIGHT] with a finite weight", text)
            return Lora(Path(path), value)
        return Lora(Path(text))


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("generate", help="make a splat from a prompt")
    what = 'what to make, e.g. "a red mug"; (red:1.3) weighs a word, \\( is a bracket'
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help=f"{what}. --show does without")
    parser.add_argument("--negative", default="", help="what to steer away from")
    parser.add_argument("--perp-neg", action="store_true", help="also steer away from the other directions (Perp-Neg)")
    parser.add_argument("--artefacts", default="", help="SDS-Bridge: words for artefacts, e.g. 'blurry, oversaturated'")
    parser.add_argument(
        "--model", help="SDXL: a diffusers folder or a .safetensors file (default: the built-in starter)"
    )
    parser.add_argument("--vae", help="another VAE: a folder or a .safetensors file")
    parser.add_argument("--tokenizer", help="folder with the SDXL tokenizer, where a single file needs one")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="PATH[:WEIGHT]", help="may be given several times"
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: official; starter without --model")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the preset or the prompt (prompt.side=profile); see --show",
    )
    parser.add_argument("--show", action="store_true", help="print all settings and stop")
    parser.add_argument("--method", choices=METHODS, help="guidance (default: the preset's, tsm)")
    parser.add_argument(
        "--cameras", choices=list(CAMERA_PRESETS), help="what is seen: an object (default), a head, or all sides of it"
    )
    parser.add_argument("--gamma", type=float, help="TSM: mu = s + gamma (t - s), in [0, 1]")
    parser.add_argument("--cfg", type=float, help="classifier-free guidance scale (default: 7.5; sds: 100)")
    parser.add_argument("--steps", type=int, help="optimisation steps")
    parser.add_argument("--views", type=int, help="views per step")
    parser.add_argument("--resolution", type=int, help="pixels per side, a multiple of 64")
    add_init_options(parser)
    parser.add_argument("--clip", metavar="VALUE|off", help="pixel-by-pixel gradient clipping (default: 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="auto", help="of the UNet (default: half on CUDA)")
    parser.add_argument(
        "--vae-dtype", choices=("float32", "bfloat16"), default="float32", help="SDXL's VAE overflows in float16"
    )
    parser.add_argument(
        "--memory",
        choices=MODES,
        help="what to keep instead of computing twice (default: the preset's; auto: what fits)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks: slow start, faster steps")
    add_device_options(parser)
    parser.add_argument(
        "--export",
        action="append",
        default=[],
        metavar="A,B",
        help=f"beside splat.ply and turntable.mp4: {', '.join(EXPORTS)}; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: outputs/<prompt>")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in --out, or extend it")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.set_defaults(run=run)


def option_name(field: str, args: argparse.Namespace) -> str:
    """The option that a configuration's field was given by."""
    if field.startswith("--"):
        return field
    name = {"clip.threshold": "clip"}.get(field, field)
    return f"--{name}" if getattr(args, name, None) is not None else f"--set {field}"


def preset_name(args: argparse.Namespace) -> str:
    """What `--preset` says, else what fits the checkpoint."""
    return str(args.preset or ("official" if args.model else "starter"))


def build_config(args: argparse.Namespace, prompt: PromptConfig) -> GenerateConfig:
    """The preset with the options that were given, and the prompt with its own. Errors: InputError."""
    config = PRESETS[preset_name(args)]
    guidance = config.guidance
    method = args.method or set_method(args.set)
    if method is not None:
        guidance = replace(guidance, method=method, **METHOD_DEFAULTS.get(method, {}))
    if args.gamma is not None:
        guidance = replace(guidance, gamma=args.gamma)
    if args.cfg is not None:
        guidance = replace(guidance, cfg=args.cfg)
    clip = config.clip
    if args.clip is not None:
        clip = replace(clip, mode="off") if args.clip == "off" else replace(clip, threshold=_number(args.clip))
    numbers = {n: getattr(args, n) for n in ("steps", "views", "resolution") if getattr(args, n) is not None}
    cameras = (
        config.cameras if args.cameras is None else with_angles(config.cameras, args.cameras, config.schedule_steps)
    )
    given = {**numbers, **({"memory": args.memory} if args.memory else {})}
    config = replace(config, guidance=guidance, clip=clip, cameras=cameras, seed=args.seed, **given)
    return apply_overrides(GenerateConfig.of(config, prompt), args.set)


def set_method(assignments: Sequence[str]) -> Method | None:
    """The method that `--set guidance.method=...` names, which brings its defaults as `--method` does."""
    named = [value.strip() for name, _, value in (a.partition("=") for a in assignments) if name.strip() == METHOD]
    return next((method for method in METHODS if named[-1:] == [method]), None)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError("--clip", "a number above 0, or off", text) from error


def default_folder(prompt: str) -> Path:
    """outputs/<prompt>, numbered when it is taken."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "splat"
    folder, number = Path("outputs") / slug, 2
    while folder.exists():
        folder, number = Path("outputs") / f"{slug}-{number}", number + 1
    return folder


def check_finite_options(args: argparse.Namespace) -> None:
    """Errors: InputError for numbers that are NaN or inf."""
    for name in ("gamma", "cfg"):
        value = getattr(args, name)
        if value is not None and not torch.isfinite(torch.tensor(value)):
            raise InputError(f"--{name}", "a finite number", value)


def check_paths(args: argparse.Namespace) -> None:
    """Errors: InputError for a mistyped path, before Shap-E has worked for minutes; loading looks closer."""
    given = [("--model", args.model), ("--vae", args.vae), *(("--lora", Lora.parse(text).path) for text in args.lora)]
    for option, path in given:
        if path is not None and not Path(path).expanduser().exists():
            raise InputError(option, "a file or folder that exists", path)
    if args.model is None:
        starter_checkpoint()


def starter_checkpoint() -> Path:
    """The folder of the built-in checkpoint. Errors: InputError where it was left out."""
    for folder in STARTER_PLACES:
        if (folder / "model_index.json").is_file():
            return folder
    got = "none, and the built-in starter checkpoint is missing"
    raise InputError("--model", "an SDXL checkpoint (a diffusers folder or a .safetensors file)", got)


def run(args: argparse.Namespace) -> int:
    """Check everything, load, optimise, write; see `cli.main` for the exit codes."""
    check_finite_options(args)
    if args.prompt is None:
        if not args.show:
            raise InputError("PROMPT", "what to make, such as 'a red mug'", "nothing")
        args.prompt = PROMPT_SHOWN
    prompt = PromptConfig(args.prompt, negative=args.negative, perp_neg=args.perp_neg, artefacts=args.artefacts)
    try:
        everything = build_config(args, prompt)
    except InputError as error:
        option = option_name(error.field, args)
        raise InputError(option, error.expected, error.got, error.remedy) from error
    config, prompt = everything.optimization, everything.prompt
    if config.guidance.method == "sds_bridge" and not prompt.artefacts:
        raise InputError("--artefacts", "words for artefacts, which sds_bridge needs", "none")
    if args.show:
        print(show(everything))
        return 0
    exports = parse_exports(args.export)
    device = resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    if args.resume and args.out is None:
        raise InputError("--resume", "--out with the folder of the run", "no --out")
    folder = RunFolder(args.out or default_folder(args.prompt))
    check_writable(folder.path)
    folder.check(resume=args.resume, overwrite=args.overwrite)
    check_paths(args)
    gaussians, started_from = start(args, config.seed, INITIAL_COUNT[preset_name(args)], device)
    teacher = load_teacher(args, device)
    settings = {
        "prompt": prompt,
        "config": config,
        **started_from,
        "model": teacher.describe(),
        "renderer": renderer,
        "device": str(device),
        "options": {k: v for k, v in vars(args).items() if k != "run"},
    }
    if args.resume:
        folder.check_identity(settings)
        state = load_state(folder.state, config.learning_rates, device)
        if state.step > config.steps:
            raise InputError("--steps", f"at least the {state.step} steps already made", config.steps)
    else:
        assert gaussians is not None  # only a resumed run has none
        state = OptimizationState.create(gaussians.to(device), config.learning_rates)
    prompts = encode_prompts(teacher, prompt)
    teacher.release_text_encoders()
    plan = memory_plan(args, folder, config, device, teacher.encoder_bytes_per_pixel())
    teacher.limit_memory(checkpoint_encoder=plan.checkpoint_encoder, max_batch=plan.max_batch)
    config = replace(config, recompute_encoder=plan.recompute_encoder or config.recompute_encoder)
    if args.compile:
        teacher.compile()
    settings = {**settings, "config": config}
    return Session(state, config, plan, renderer, folder, settings, exports).run(teacher, prompts)


def memory_plan(
    args: argparse.Namespace,
    folder: RunFolder,
    config: OptimizeConfig,
    device: torch.device,
    encoder_bytes_per_pixel: float,
) -> MemoryPlan:
    """A resumed run keeps its plan, because plans differ in the last bits of their results; `--memory` wins."""
    if args.resume and args.memory is None:
        return MemoryPlan(**json.loads(read_metadata(folder.state)["memory"]))
    return plan_memory(
        config.memory,
        free_bytes(device),
        resolution=config.resolution,
        views=config.views,
        encoder_bytes_per_pixel=encoder_bytes_per_pixel,
    )


def load_teacher(args: argparse.Namespace, device: torch.device) -> DiffusersSDXL:
    """The SDXL that the options name. Errors: InputError."""
    from ..diffusion.sdxl_diffusers import load_sdxl

    model = args.model or starter_checkpoint()
    print(f"Loading {Path(model).name} ...", file=sys.stderr, flush=True)
    return load_sdxl(
        model,
        vae=args.vae,
        loras=[(lora.path, lora.weight) for lora in map(Lora.parse, args.lora)],
        tokenizer=args.tokenizer,
        device=device,
        unet_dtype=DTYPES[args.dtype],
        vae_dtype=DTYPES[args.vae_dtype] or torch.float32,
    )
