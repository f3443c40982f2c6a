"""`restyle FILE PROMPT` and `edit FILE --from WORDS --to WORDS`: a splat that exists becomes another."""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..cameras import Cameras, orbit_cameras
from ..editing.config import Task, edit_config
from ..editing.regions import Part, Region, Seen, parse_part
from ..editing.work import Work
from ..errors import InputError
from ..formats import READABLE, load_gaussians
from ..gaussians import Gaussians
from ..initializers import UPS
from ..initializers.pictures import eight_bits
from ..optimize import PRESETS
from ..setting_values import show
from .beginning import Beginning
from .devices import check_devices
from .generate import (
    PROMPT_SHOWN,
    Place,
    add_machine_options,
    add_result_options,
    add_teacher_options,
    add_view_options,
    check_multiview,
    make,
    preset_name,
    run_in_folder,
)
from .generate_config import ChangeConfig, add_setting_options, build_config
from .initial import content_hash

CAMERA = (0.0, 0.0, 3.5, 31.5)
"""Azimuth, elevation, distance and field of view that a mask's picture is rendered with, unless it says otherwise: as
`render` draws it."""
LENS = ((-90.0, 90.0), (0.01, 1e9), (1.0, 150.0))
"""Bounds of the last three."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to the parser."""
    restyle = commands.add_parser("restyle", help="the same object in the style of a checkpoint, LoRA and prompt")
    restyle.add_argument("file", metavar="FILE", type=Path, help=f"a splat: {', '.join(READABLE)}")
    restyle.add_argument("prompt", metavar="PROMPT", nargs="?", help="what it should be. --show does without")
    restyle.add_argument("--from", dest="source", metavar="WORDS", help="what it is: only the difference counts then")
    edit = commands.add_parser("edit", help="change what words say of a splat, or of a region of it")
    edit.add_argument("file", metavar="FILE", type=Path, help=f"a splat: {', '.join(READABLE)}")
    edit.add_argument("--from", dest="source", metavar="WORDS", help='what it is, e.g. "a red car"')
    edit.add_argument("--to", dest="prompt", metavar="WORDS", help='what it should be, e.g. "a blue car"')
    for parser, task in ((restyle, "restyle"), (edit, "edit")):
        _add_region_options(parser)
        add_teacher_options(parser)
        parser.add_argument("--show", action="store_true", help="print all settings and stop")
        add_setting_options(parser, ChangeConfig)
        add_view_options(parser)
        add_machine_options(parser)
        add_result_options(parser)
        parser.set_defaults(run=run, task=task)


def _add_region_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--up", choices=UPS, default="auto", help="axis of the file that is up (default: -y)")
    parser.add_argument("--yaw", type=float, default=0.0, help="degrees; the side at this azimuth is the front")
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="PART",
        help="what may change: box:X,Y,Z,SX,SY,SZ, sphere:X,Y,Z,RADIUS or points:X,Y,Z,COUNT (the nearest to a point), "
        "in the splat's own units, Y up, front +Z; several count together",
    )
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="FILE.png[@AZIMUTH,ELEVATION,DISTANCE,FOV]",
        help="what may change: what a camera around the origin sees where this picture is white (default: "
        f"@{','.join(f'{value:g}' for value in CAMERA)}; degrees, the splat's own units)",
    )
    parser.add_argument("--behind", action="store_true", help="with --mask: also what is hidden behind it")
    parser.add_argument(
        "--around",
        choices=("origin", "splat"),
        help="with --mask: what its cameras go round; splat: its middle, and its radius counts as 0.8, as the "
        "change itself sees it, for one that lies elsewhere (default: origin)",
    )
    parser.add_argument("--outside", action="store_true", help="all but the region may change")


def run(args: argparse.Namespace) -> int:
    """Check everything, load, optimise, write; see `cli.main` for the exit codes."""
    task: Task = args.task
    where = "PROMPT" if task == "restyle" else "--to"
    if args.prompt is None:
        if not args.show:
            raise InputError(where, "what the splat should be, such as 'a blue car'", "nothing")
        args.prompt = PROMPT_SHOWN
    if task == "edit" and args.source is None and not args.show:
        raise InputError("--from", "what the splat is, such as 'a red car'", "nothing")
    for option, text in (("--from", args.source), (where, args.prompt)):
        if text is not None and not text.strip():
            raise InputError(option, "a description, such as 'a red car'", "an empty text")
    everything = build_config(args, PRESETS[preset_name(args)], task)
    assert isinstance(everything, ChangeConfig)
    method = everything.guidance.method
    if method.needs_artefacts and not everything.prompt.artefacts:
        raise InputError("--artefacts", f"words for artefacts, which {method.name} needs", "none")
    check_multiview(args, everything.optimization, edit_config(PRESETS[preset_name(args)], task))
    check_devices(args.device, everything.optimization.views)
    if args.show:
        print(show(everything, [f"guidance.{name}" for name in method.ignores]))
        return 0
    region = _region(args)
    config, prompt = everything.optimization, everything.prompt
    source = None if args.source is None else replace(prompt, prompt=args.source)

    def begin(device: torch.device) -> Beginning:
        gaussians = load_gaussians(args.file.expanduser())
        asked = "--region" if args.region else "--mask"
        free = None if region is None else _named(asked, lambda: region.mask(gaussians))
        work = _named(asked, lambda: Work.of(gaussians, config.edit, free, up=args.up, yaw=args.yaw))
        _tell(work)
        return Beginning(None, _described(args, gaussians, work, source is not None), work, source)

    def start(place: Place) -> int:
        if args.file.expanduser().resolve() == place.folder.splat.resolve():
            got = f"{place.folder.path}, whose {place.folder.splat.name} is FILE and would be replaced"
            raise InputError("--out", "another folder than FILE's", got, "name another folder")
        return make(args, config, prompt, place, begin)

    return run_in_folder(args, start)


def _named(option: str, make: Any) -> Any:
    """What `make` gives; errors about the region name its option."""
    try:
        return make()
    except InputError as error:
        field = option if error.field == "region" else f"--{error.field.removeprefix('edit.')}"
        raise InputError(field, error.expected, error.got, error.remedy) from error


def _described(args: argparse.Namespace, gaussians: Gaussians, work: Work, source: bool) -> dict[str, Any]:
    """What identifies the start of such a run."""
    free = hashlib.sha256(work.free.cpu().numpy().tobytes()).hexdigest()
    found = {"init_sha256": content_hash(gaussians), "count": len(gaussians), "may_change_sha256": free}
    found |= {"up": args.up, "yaw": args.yaw, "task": args.task}
    return found | ({"from": args.source} if source else {})


def _tell(work: Work) -> None:
    for line in work.described:
        print(f"{line[0].upper()}{line[1:]}.", file=sys.stderr, flush=True)


def _region(args: argparse.Namespace) -> Region | None:
    """Errors: InputError."""
    parts = [parse_part(text) for text in args.region]
    if args.mask:
        parts += _masks(args.mask, args.behind, args.around == "splat")
    elif args.behind or args.around:
        raise InputError("--behind" if args.behind else "--around", "--mask beside it", "none")
    if not parts:
        if args.outside:
            raise InputError("--outside", "--region or --mask beside it", "none")
        return None
    return Region(tuple(parts), args.outside)


def _masks(texts: list[str], behind: bool, around_splat: bool) -> list[Part]:
    """With `behind` the masks hold together, otherwise each counts by itself."""
    from PIL import Image

    masks, cameras = [], []
    for text in texts:
        name, camera = _camera(text)
        try:
            picture = _grey_on_black(eight_bits(Image.open(Path(name).expanduser())))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError("--mask", "a picture", f"{name} ({error})") from error
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        masks.append(values.reshape(1, picture.height, picture.width).float() / 255)
        azimuth, elevation, distance, fov = camera
        angle = float(torch.deg2rad(torch.tensor(fov)))
        cameras.append(orbit_cameras([azimuth], elevation, distance, angle, picture.width, picture.height))
    if behind and len({mask.shape for mask in masks}) == 1:
        return [Seen(torch.cat(masks), _together(cameras), True, around_splat)]
    if behind:
        raise InputError("--mask", "pictures of one size with --behind", ", ".join(texts))
    return [Seen(mask, camera, False, around_splat) for mask, camera in zip(masks, cameras, strict=True)]


def _grey_on_black(picture: Any) -> Any:
    """A picture of PIL in grey, laid on black where it is transparent."""
    from PIL import Image

    shown = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "black"), shown).convert("L")


def _together(cameras: list[Cameras]) -> Cameras:
    """Cameras of one size as one batch."""
    return Cameras(
        torch.cat([c.viewmats for c in cameras]),
        torch.cat([c.Ks for c in cameras]),
        cameras[0].width,
        cameras[0].height,
        torch.cat([c.azimuth for c in cameras]),
        torch.cat([c.elevation for c in cameras]),
        torch.cat([c.fov for c in cameras]),
    )


def _camera(text: str) -> tuple[str, tuple[float, ...]]:
    """File and camera of one --mask."""
    name, at, numbers = text.rpartition("@")
    if not at or Path(text).expanduser().is_file():
        return text, CAMERA
    try:
        given = [float(part) for part in numbers.split(",")]
    except ValueError as error:
        raise InputError("--mask", "FILE.png[@AZIMUTH,ELEVATION,DISTANCE,FOV]", text) from error
    if not 1 <= len(given) <= len(CAMERA) or not all(abs(n) < float("inf") for n in given):
        raise InputError("--mask", "one to four numbers after the @", text)
    camera = (*given, *CAMERA[len(given) :])
    for what, value, low, high in zip(("ELEVATION", "DISTANCE", "FOV"), camera[1:], *zip(*LENS)):
        if not low <= value <= high:
            raise InputError("--mask", f"{what} from {low:g} to {high:g} after the @", f"{value:g}")
    return name, camera
