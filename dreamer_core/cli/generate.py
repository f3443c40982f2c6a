"""`generate PROMPT`: a prompt becomes a splat, with pictures, a film and a log."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..formats import read_ply
from ..gaussians import Gaussians
from ..initializers import SHAPES, initial_shape
from ..optimize import PRESETS, OptimizationState, OptimizeConfig, load_state
from ..optimize.checkpoint import read_metadata
from ..optimize.config import METHODS
from ..optimize.memory import MODES, MemoryPlan, free_bytes, plan_memory
from ..optimize.overrides import apply_overrides, show
from ..optimize.presets import INITIAL_COUNT
from ..optimize.randomness import step_generator
from ..prompts import PromptConfig, encode_prompts
from .options import add_device_options, check_renderer, check_writable, resolve_device
from .run_folder import RunFolder, fingerprint
from .session import Session

STARTER = Path(__file__).resolve().parents[2] / "starter" / "checkpoint"
"""The small SDXL that comes with the repository."""

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
    parser.add_argument("prompt", metavar="PROMPT", help='what to make, e.g. "a red mug"')
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
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the preset; see --show"
    )
    parser.add_argument("--show", action="store_true", help="print all settings and stop")
    parser.add_argument("--method", choices=METHODS, help="guidance (default: the preset's, tsm)")
    parser.add_argument("--gamma", type=float, help="TSM: mu = s + gamma (t - s), in [0, 1]")
    parser.add_argument("--cfg", type=float, help="classifier-free guidance scale (default: 7.5; sds: 100)")
    parser.add_argument("--steps", type=int, help="optimisation steps")
    parser.add_argument("--views", type=int, help="views per step")
    parser.add_argument("--resolution", type=int, help="pixels per side, a multiple of 64")
    parser.add_argument("--init", default="sphere", metavar="|".join([*SHAPES, "FILE.ply"]), help="default: sphere")
    parser.add_argument("--count", type=int, help="Gaussians of the initial shape (default: the preset's)")
    parser.add_argument("--clip", metavar="VALUE|off", help="pixel-by-pixel gradient clipping (default: 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="auto", help="of the UNet (default: half on CUDA)")
    parser.add_argument(
        "--vae-dtype", choices=("float32", "bfloat16"), default="float32", help="SDXL's VAE overflows in float16"
    )
    parser.add_argument(
        "--memory", choices=MODES, help="how much to keep instead of computing twice (default: auto, from free memory)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks: slow start, faster steps")
    add_device_options(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: outputs/<prompt>")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in --out, or extend it")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.set_defaults(run=run)


METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sds": {"cfg": 100.0},
    "sdi": {"t_annealing": (999, 200)},
    "sds_bridge": {"cfg": 100.0},
}
"""What a method chosen by name brings with it; an option given beside it wins."""


def option_name(field: str, args: argparse.Namespace) -> str:
    """The option that a configuration's field was given by."""
    if field.startswith("--"):
        return field
    name = {"clip.threshold": "clip"}.get(field, field)
    return f"--{name}" if getattr(args, name, None) is not None else f"--set {field}"


def preset_name(args: argparse.Namespace) -> str:
    """What `--preset` says, else what fits the checkpoint."""
    return str(args.preset or ("official" if args.model else "starter"))


def build_config(args: argparse.Namespace) -> OptimizeConfig:
    """The preset with the options that were given. Errors: InputError."""
    config = PRESETS[preset_name(args)]
    guidance = config.guidance
    if args.method is not None:
        guidance = replace(guidance, method=args.method, **METHOD_DEFAULTS.get(args.method, {}))
    if args.gamma is not None:
        guidance = replace(guidance, gamma=args.gamma)
    if args.cfg is not None:
        guidance = replace(guidance, cfg=args.cfg)
    clip = config.clip
    if args.clip is not None:
        clip = replace(clip, mode="off") if args.clip == "off" else replace(clip, threshold=_number(args.clip))
    numbers = {n: getattr(args, n) for n in ("steps", "views", "resolution") if getattr(args, n) is not None}
    config = replace(config, guidance=guidance, clip=clip, seed=args.seed, **numbers)
    return apply_overrides(config, args.set)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError("--clip", "a number above 0, or off", text) from error


def initial_gaussians(args: argparse.Namespace, seed: int) -> Gaussians:
    """The scene that `--init` names. Errors: InputError."""
    if args.init.lower().endswith(".ply"):
        if args.count is not None:
            raise InputError("--count", "no count beside a file, which has its own", args.count)
        return read_ply(Path(args.init), "--init")
    count = args.count if args.count is not None else INITIAL_COUNT[preset_name(args)]
    try:
        return initial_shape(args.init, count, step_generator(seed, 0, "init"))
    except InputError as error:
        raise InputError(f"--{error.field}", error.expected, error.got, error.remedy) from error


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


def run(args: argparse.Namespace) -> int:
    """Check everything, load, optimise, write; see `cli.main` for the exit codes."""
    check_finite_options(args)
    prompt = PromptConfig(args.prompt, negative=args.negative, perp_neg=args.perp_neg, artefacts=args.artefacts)
    try:
        config = build_config(args)
    except InputError as error:
        option = option_name(error.field, args)
        raise InputError(option, error.expected, error.got, error.remedy) from error
    if config.guidance.method == "sds_bridge" and not args.artefacts:
        raise InputError("--artefacts", "words for artefacts, which sds_bridge needs", "none")
    if args.show:
        print(show(config))
        return 0
    device = resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    if args.resume and args.out is None:
        raise InputError("--resume", "--out with the folder of the run", "no --out")
    folder = RunFolder(args.out or default_folder(args.prompt))
    check_writable(folder.path)
    folder.check(resume=args.resume, overwrite=args.overwrite)
    gaussians = initial_gaussians(args, config.seed)
    teacher = load_teacher(args, device)
    settings = {
        "prompt": prompt,
        "config": config,
        "init": args.init,
        "init_sha256": content_hash(gaussians),
        "count": len(gaussians),
        "model": teacher.describe(),
        "renderer": renderer,
        "device": str(device),
        "options": {k: v for k, v in vars(args).items() if k != "run"},
    }
    identity = fingerprint(settings)
    if args.resume:
        folder.check_identity(identity)
        state = load_state(folder.state, config.learning_rates, device)
        if state.step > config.steps:
            raise InputError("--steps", f"at least the {state.step} steps already made", config.steps)
    else:
        state = OptimizationState.create(gaussians.to(device), config.learning_rates)
    prompts = encode_prompts(teacher, prompt)
    teacher.release_text_encoders()
    plan = memory_plan(args, folder, config, device, teacher.encoder_bytes_per_pixel())
    teacher.limit_memory(checkpoint_encoder=plan.checkpoint_encoder, max_batch=plan.max_batch)
    config = replace(config, recompute_encoder=plan.recompute_encoder)
    if args.compile:
        teacher.compile()
    settings = {**settings, "config": config}
    return Session(state, config, plan, renderer, folder, settings, identity).run(teacher, prompts)


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
        args.memory or "auto",
        free_bytes(device),
        resolution=config.resolution,
        views=config.views,
        encoder_bytes_per_pixel=encoder_bytes_per_pixel,
    )


def content_hash(gaussians: Gaussians) -> str:
    """A hash of every number of a scene."""
    digest = hashlib.sha256()
    for _, value in gaussians.tensors():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_teacher(args: argparse.Namespace, device: torch.device):  # type: ignore[no-untyped-def]
    """The SDXL that the options name, as a DiffusersSDXL. Errors: InputError."""
    from ..diffusion.sdxl_diffusers import load_sdxl

    loras = [Lora.parse(text) for text in args.lora]
    with tempfile.TemporaryDirectory(prefix="dreamer-xl-") as scratch:
        model = args.model
        if model is None:
            model = STARTER if (STARTER / "model_index.json").is_file() else random_tiny_sdxl(Path(scratch))
        print(f"Loading {Path(model).name} ...", file=sys.stderr, flush=True)
        return load_sdxl(
            model,
            vae=args.vae,
            loras=[(lora.path, lora.weight) for lora in loras],
            tokenizer=args.tokenizer,
            device=device,
            unet_dtype=DTYPES[args.dtype],
            vae_dtype=DTYPES[args.vae_dtype] or torch.float32,
        )


def random_tiny_sdxl(folder: Path) -> Path:
    """A tiny SDXL with random weights, for trying out the machinery; says so plainly."""
    from ..diffusion.tiny_sdxl import save_tiny_sdxl

    print(
        "No checkpoint given and no starter checkpoint found: using a tiny SDXL with RANDOM weights. "
        "It exercises every part of the program, but makes noise, not the object of the prompt.",
        file=sys.stderr,
    )
    return save_tiny_sdxl(folder / "tiny-sdxl")
