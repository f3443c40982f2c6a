"""`render FILE`: a turntable or one view, as PNG, MP4, WebP or GIF."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..cameras import turntable
from ..editing.placement import Placement
from ..errors import InputError
from ..formats import READABLE, load_gaussians, read_metadata
from ..media import FILMS, check_film, contact_sheet, render_views, write_film, write_png
from .exports import in_film
from .options import add_device_options, check_renderer, check_writable, parse_color, resolve_device

FOV = math.degrees(0.55)
DEFAULT_VIEWS = {".mp4": 120, ".webp": 48, ".gif": 48}
"""Of a film by its suffix; a picture has one."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("render", help="a turntable or one view of a splat, as PNG, MP4, WebP or GIF")
    parser.add_argument("file", type=Path, metavar="FILE", help=f"a splat: {', '.join(READABLE)}")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="FILE.png (one view or a sheet), or FILE.mp4, FILE.webp, FILE.gif (a film)",
    )
    parser.add_argument(
        "--views", type=int, default=None, help="views of the turntable (MP4: 120, WebP and GIF: 48, PNG: 1)"
    )
    parser.add_argument("--azimuth", type=float, default=0.0, help="degrees; 0 is the front (default), 90 is at +X")
    parser.add_argument("--elevation", type=float, default=0.0, help="degrees above the horizon (default: 0)")
    parser.add_argument("--radius", type=float, default=3.5, help="distance of the camera (default: 3.5)")
    parser.add_argument(
        "--around",
        choices=("origin", "splat"),
        default="origin",
        help="what the camera goes round; splat: as a change sees it (its middle, its radius counts as 0.8), for one "
        "that lies elsewhere (default: origin)",
    )
    parser.add_argument("--fov", type=float, default=FOV, help=f"degrees over the height (default: {FOV:.4g})")
    parser.add_argument(
        "--half-width",
        type=float,
        metavar="W",
        help="parallel rays (an orthographic camera) that show W world units to each side, in place of --fov",
    )
    parser.add_argument("--resolution", type=int, default=512, help="pixels per side (default: 512)")
    parser.add_argument("--background", default="white", help="white, black, grey or R,G,B (default: white)")
    parser.add_argument("--fps", type=int, default=24, help="frames per second of the film (default: 24)")
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Render and write one file."""
    suffix = args.out.suffix.lower()
    if suffix != ".png" and suffix not in FILMS:
        raise InputError("--out", f"a name that ends in .png, {', '.join(FILMS)}", args.out)
    if args.out.is_dir():
        raise InputError("--out", "the name of a file", f"{args.out}, which is a folder")
    views = args.views if args.views is not None else DEFAULT_VIEWS.get(suffix, 1)
    if views < 1:
        raise InputError("--views", "at least 1", views)
    if args.resolution < 16:
        raise InputError("--resolution", "at least 16 pixels", args.resolution)
    if not 1 <= args.fov <= 150:
        raise InputError("--fov", "degrees from 1 to 150", args.fov)
    if args.half_width is not None and not 0.01 <= args.half_width <= 100:
        raise InputError("--half-width", "world units from 0.01 to 100", args.half_width)
    for name, low, high in (("radius", 0.01, 1e9), ("elevation", -90.0, 90.0), ("azimuth", -360.0, 360.0)):
        if not low <= getattr(args, name) <= high:  # NaN lies nowhere
            raise InputError(f"--{name}", f"a number from {low:g} to {high:g}", getattr(args, name))
    if args.fps < 1:
        raise InputError("--fps", "at least 1", args.fps)
    check_film(suffix, args.resolution, args.fps, ("--resolution", "--fps"))
    background = parse_color(args.background)
    device = resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    check_writable(args.out)
    gaussians = load_gaussians(args.file)
    if args.around == "splat":
        gaussians = Placement.of(gaussians).place(gaussians)
    gaussians = gaussians.to(device)
    cameras = turntable(
        views,
        args.resolution,
        elevation=args.elevation,
        radius=args.radius,
        fov=math.radians(args.fov),
        start=args.azimuth,
        half_width=args.half_width,
    )
    images = render_views(gaussians, cameras, background, renderer)
    if suffix in FILMS:
        write_film(images, args.out, args.fps, in_film(read_metadata(args.file)))
    else:
        sheet = list(images)
        write_png(contact_sheet(sheet, columns=min(4, len(sheet))), args.out)
    print(args.out)
    return 0
