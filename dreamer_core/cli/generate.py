"""`generate PROMPT`: a prompt becomes a splat, with pictures, a film and a log."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..optimize import PRESETS, OptimizeConfig
from ..optimize.identity import Identity
from ..optimize.memory import MemoryPlan, free_bytes, plan_memory
from ..optimize.profiles import Fitted, fitted
from ..optimize.views import views_at_most
from ..orbit import CAMERA_PRESETS
from ..prompts import PromptConfig
from ..setting_values import show
from ..teachers.multiview.files import PUBLISHED, adapter_header
from .beginning import Beginning, from_options
from .best_of_options import add_best_of_options, check_best_of
from .devices import check_devices, resolve_devices, shared_views
from .exports import parse_exports
from .generate_config import GenerateConfig, add_setting_options, build_config, given_settings
from .initial import VIEWS, add_init_options, draws_views
from .options import add_device_options, check_renderer, check_writable
from .own_folder import OUTPUTS, folder_name, own_folder
from .own_folder import default_folder as default_folder  # others' scripts know it here
from .run_folder import EXPORTS, RunFolder
from .session import Interrupt, Session
from .teachers import Teachers

if TYPE_CHECKING:
    from ..teachers.sdxl.loading import DiffusersSDXL

PACKAGE = Path(__file__).resolve().parents[1]
STARTER_PLACES = (PACKAGE / "starter", PACKAGE.parent / "starter" / "checkpoint")
"""Where the wheel and the repository keep the small SDXL that comes with them."""
STARTER_ADAPTER = "multiview.safetensors"
"""Of its folder: its own multi-view adapter."""
PROMPT_SHOWN = "an object"
"""Stands for the prompt where only settings are printed."""

PREDICTIONS: dict[str, dict[str, Any]] = {
    "eps": {"prediction": "epsilon", "zero_snr": False},
    "v": {"prediction": "v_prediction", "zero_snr": False},
    "v_zsnr": {"prediction": "v_prediction", "zero_snr": True},
}
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
    add_recipe_options(parser)
    add_result_options(parser)
    add_best_of_options(parser)
    parser.set_defaults(run=run)


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """--export, --out, --resume, --overwrite."""
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


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """What to make, with which teacher and settings, from what, and on what."""
    what = 'what to make, e.g. "a red mug"; (red:1.3) weighs a word, \\( is a bracket'
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help=f"{what}. --show does without")
    add_teacher_options(parser)
    parser.add_argument("--show", action="store_true", help="print all settings and stop")
    add_setting_options(parser)
    add_view_options(parser)
    add_init_options(parser)
    add_machine_options(parser)


def add_teacher_options(parser: argparse.ArgumentParser) -> None:
    """Model, LoRAs, preset."""
    parser.add_argument(
        "--model", help="SDXL: a diffusers folder or a .safetensors file (default: the built-in starter)"
    )
    parser.add_argument("--vae", help="another VAE: a folder or a .safetensors file")
    parser.add_argument("--tokenizer", help="folder with the SDXL tokenizer, where a single file needs one")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="PATH[:WEIGHT]", help="may be given several times"
    )
    parser.add_argument(
        "--multiview",
        metavar="FILE",
        type=adapter_file,
        help=f"a multi-view adapter against second faces; for SDXL: {PUBLISHED}; starter: that of the built-in starter",
    )
    parser.add_argument(
        "--parameterization",
        choices=list(PREDICTIONS),
        help="what the model predicts: noise, v, or v with zero terminal SNR (default: as the checkpoint says)",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: official; starter without --model")


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """--cameras and --clip."""
    parser.add_argument(
        "--cameras",
        choices=list(CAMERA_PRESETS),
        help="what is seen: an object, a head, or all sides of it (default: the preset's)",
    )
    parser.add_argument("--clip", metavar="VALUE|off", help="pixel-by-pixel gradient clipping (default: 0.05)")


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Precision, device, renderer."""
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="auto", help="of the UNet (default: half on CUDA)")
    parser.add_argument(
        "--vae-dtype", choices=("float32", "bfloat16"), default="float32", help="SDXL's VAE overflows in float16"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks: slow start, faster steps")
    add_device_options(parser)


def preset_name(args: argparse.Namespace) -> str:
    """What `--preset` says, else what fits the checkpoint."""
    return str(args.preset or ("official" if args.model else "starter"))


def check_paths(args: argparse.Namespace) -> None:
    """Errors: InputError for a mistyped path, before Shap-E has worked for minutes; loading looks closer."""
    given = [("--model", args.model), ("--vae", args.vae), *(("--lora", Lora.parse(text).path) for text in args.lora)]
    for option, path in given:
        if path is not None and not Path(path).expanduser().exists():
            raise InputError(option, "a file or folder that exists", path)
    if args.multiview is not None:
        adapter_header(Path(args.multiview).expanduser(), "--multiview")
    if args.model is None:
        starter_checkpoint()


def adapter_file(text: str) -> str:
    """The path that `--multiview` means."""
    if text != "starter":
        return text
    found = [folder / STARTER_ADAPTER for folder in STARTER_PLACES if (folder / STARTER_ADAPTER).is_file()]
    return str(found[0] if found else STARTER_PLACES[-1] / STARTER_ADAPTER)


def starter_checkpoint() -> Path:
    """The folder of the built-in checkpoint. Errors: InputError where it was left out."""
    for folder in STARTER_PLACES:
        if (folder / "model_index.json").is_file():
            return folder
    got = "none, and the built-in starter checkpoint is missing"
    raise InputError("--model", "an SDXL checkpoint (a diffusers folder or a .safetensors file)", got)


def checked(args: argparse.Namespace) -> GenerateConfig | None:
    """All settings; None where they were only to be printed. Errors: InputError."""
    if args.prompt is None:
        if not args.show:
            raise InputError("PROMPT", "what to make, such as 'a red mug'", "nothing")
        args.prompt = PROMPT_SHOWN
    everything = build_config(args, PRESETS[preset_name(args)])
    method = everything.guidance.method
    if method.needs_artefacts and not everything.prompt.artefacts:
        raise InputError("--artefacts", f"words for artefacts, which {method.name} needs", "none")
    check_multiview(args, everything.optimization, PRESETS[preset_name(args)].config)
    check_devices(args.device, everything.optimization.views)
    if args.show:
        print(show(everything, [f"guidance.{name}" for name in method.ignores]))
        print("# Some teachers change their guidance scale when they are loaded; see --teacher.", file=sys.stderr)
        return None
    return everything


def check_multiview(args: argparse.Namespace, config: OptimizeConfig, preset: OptimizeConfig) -> None:
    """Errors: InputError for an adapter that no step asks, and for settings of one that were changed without one."""
    used = max(config.multiview_share) > 0
    if args.multiview is not None and not used and not draws_views(args):
        remedy = f"choose the preset multiview or fast, --set multiview_share=0.5,0.1, or --init {VIEWS}"
        raise InputError("--multiview", "a multiview_share above 0", "0", remedy)
    touched = [n for n in ("multiview_share", "multiview_half_width") if getattr(config, n) != getattr(preset, n)]
    if touched and args.multiview is None:
        raise InputError(f"--set {touched[0]}", "--multiview FILE beside it", "none")


def run(args: argparse.Namespace) -> int:
    """Check everything, load, optimise, write; see `cli.main` for the exit codes."""
    everything = checked(args)
    if everything is None:
        return 0
    check_best_of(args, everything.optimization)
    return run_in_folder(args, lambda place: make_from_prompt(args, everything, place))


def run_in_folder(args: argparse.Namespace, make_it: Callable[[Place], int]) -> int:
    """Check where the result goes, and make it there."""
    exports = parse_exports(args.export)
    device, *further = resolve_devices(args.device)
    renderer = check_renderer(args.renderer, device)
    if args.resume and args.out is None:
        raise InputError("--resume", "--out with the folder of the run", "no --out")
    check_writable(args.out or OUTPUTS / folder_name(args.prompt))
    with own_folder(args.out, args.prompt) as path:
        return make_it(Place(RunFolder(path), device, renderer, exports, further=tuple(further)))


def make_from_prompt(args: argparse.Namespace, everything: GenerateConfig, place: Place) -> int:
    """One run, or the best of several."""
    config = everything.optimization
    if args.best_of > 1:
        from .best_of import make_best  # which makes the best one by this module

        return make_best(args, config, everything.prompt, place)
    return make(args, config, everything.prompt, place, from_options(args, config.seed, PRESETS[preset_name(args)]))


@dataclass(frozen=True)
class Place:
    """Where a run works: its folder, its hardware, its teachers, and what tells it to stop."""

    folder: RunFolder
    device: torch.device
    renderer: str
    exports: tuple[str, ...] = ()
    teachers: Teachers = field(default_factory=Teachers)
    interrupt: Interrupt | None = None
    """Asked after every step; None: Ctrl-C."""
    further: tuple[torch.device, ...] = ()
    """Devices that share the views of every step."""
    checked: bool = False
    """The folder may hold what trials have left there."""


def make(
    args: argparse.Namespace,
    config: OptimizeConfig,
    prompt: PromptConfig,
    place: Place,
    begin: Callable[[torch.device], Beginning],
) -> int:
    """Load, optimise and write into a folder that is this run's own."""
    folder, device, renderer = place.folder, place.device, place.renderer
    if not place.checked:
        folder.check(resume=args.resume, overwrite=args.overwrite)
    check_paths(args)
    beginning = begin(device)
    started_from, work = beginning.described, beginning.work
    teacher = place.teachers.get(args, device)
    config, fit = fit_to(args, config, teacher)
    settings = {
        "prompt": prompt,
        "config": config,
        **started_from,
        "model": teacher.describe(),
        "teacher": {"kind": fit.kind, "changes": fit.changes},
        "renderer": renderer,
        "device": ",".join(map(str, (device, *place.further))),
        "options": {k: v for k, v in vars(args).items() if k != "run"},
    }
    machine = {"renderer": renderer, "device": device.type}  # they differ in the last bits of their results
    identity = Identity(config.recipe, {"prompt": prompt, **started_from, "model": settings["model"], **machine})
    if args.resume:
        folder.check_identity(identity)
    prompts, *sources = place.teachers.encode(teacher, prompt, *filter(None, [beginning.source]))
    if not args.resume and beginning.made is None:
        folder.drawn.unlink(missing_ok=True)
    start = beginning.start(teacher, prompts, config, renderer, folder.drawn)
    session = Session(config, identity, renderer, folder, settings, start, device, args.resume, place.exports, work)
    session.interrupt = place.interrupt
    if beginning.made is not None:
        session.go_on_from(*beginning.made)
    if work is not None and sources:
        session.made.work = work.with_source(sources[0])
    saved = folder.memory_plan(config.memory) if args.resume else None
    plan = prepare(args, teacher, config, device, saved, 1 + len(place.further))
    with shared_views(args, teacher, plan, place.further):
        return session.run(teacher, prompts, plan)


def fit_to(
    args: argparse.Namespace, config: OptimizeConfig, teacher: DiffusersSDXL, say: bool = True
) -> tuple[OptimizeConfig, Fitted]:
    """The settings for what the teacher is, where no option says otherwise; `say` it if it is no ordinary one."""
    config, fit = fitted(config, teacher.kind, given_settings(args))
    if say and fit.note:
        print(f"Teacher: {fit}", file=sys.stderr, flush=True)
    return config, fit


def prepare(
    args: argparse.Namespace,
    teacher: DiffusersSDXL,
    config: OptimizeConfig,
    device: torch.device,
    saved: MemoryPlan | None = None,
    devices: int = 1,
) -> MemoryPlan:
    """Make the teacher fit into memory, on one of so many `devices`, and compile it where that was asked for.

    A resumed run keeps its `saved` plan: plans differ in the last bits of their results.
    """
    plan = saved
    if plan is None:
        plan = plan_memory(
            config.memory,
            free_bytes(device) // (devices if device.type == "cpu" else 1),
            resolution=config.resolution,
            views=views_at_most(config, teacher.azimuths, devices),
            encoder_bytes_per_pixel=teacher.encoder_bytes_per_pixel(),
        )
    teacher.limit_memory(checkpoint_encoder=plan.checkpoint_encoder, max_batch=plan.max_batch)
    if args.compile:
        teacher.compile()
    return plan


def load_teacher(args: argparse.Namespace, device: torch.device, keep_decoder: bool = False) -> DiffusersSDXL:
    """The SDXL that the options name. Errors: InputError."""
    from ..teachers.sdxl.loading import load_sdxl

    model = args.model or starter_checkpoint()
    print(f"Loading {Path(model).name} ...", file=sys.stderr, flush=True)
    return load_sdxl(
        model,
        vae=args.vae,
        loras=[(lora.path, lora.weight) for lora in map(Lora.parse, args.lora)],
        tokenizer=args.tokenizer,
        multiview=args.multiview,
        device=device,
        unet_dtype=DTYPES[args.dtype],
        vae_dtype=getattr(torch, args.vae_dtype),
        keep_decoder=keep_decoder or draws_views(args),
        **PREDICTIONS.get(args.parameterization, {}),
    )
