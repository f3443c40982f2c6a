"""`render FILE`: a turntable or one view, as PNG or MP4."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..cameras import orbit_cameras, turntable
from ..errors import InputError
from ..formats import read_ply
from ..media import contact_sheet, render_views, write_mp4, write_png
from .options import add_device_options, check_renderer, check_writable, parse_color, resolve_device


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("render", help="a turntable or one view of a splat, as PNG or MP4")
    parser.add_argument("file", type=Path, metavar="FILE", help="a Gaussian splat .ply")
    parser.add_argument("--out", type=Path, required=True, help="FILE.png (views or a sheet) or FILE.mp4")
    parser.add_argument("--views", type=int, default=None, help="views of the turntable (MP4: 120, PNG: 1)")
    parser.add_argument("--azimuth", type=float, default=0.0, help="degrees; 0 is the front, 90 looks from +X")
    parser.add_argument("--elevation", type=float, default=0.0, help="degrees above the horizon")
    parser.add_argument("--radius", type=float, default=3.5, help="distance of the camera (default: 3.5)")
    parser.add_argument("--fov", type=float, default=0.55, help="radians over the height (default: 0.55)")
    parser.add_argument("--resolution", type=int, default=512, help="pixels per side (default: 512)")
    parser.add_argument("--background", default="white", help="white, black, grey or R,G,B (default: white)")
    parser.add_argument("--fps", type=int, default=24, help="frames per second of the film (default: 24)")
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Render and write one file."""
    suffix = args.out.suffix.lower()
    if suffix not in (".png", ".mp4"):
        raise InputError("--out", "a name that ends in .png or .mp4", args.out)
    if args.out.is_dir():
        raise InputError("--out", "the name of a file", f"{args.out}, which is a folder")
    views = args.views if args.views is not None else (120 if suffix == ".mp4" else 1)
    if views < 1:
        raise InputError("--views", "at least 1", views)
    if args.resolution < 16 or (suffix == ".mp4" and args.resolution % 2):
        raise InputError("--resolution", "at least 16 pixels, an even number for a film", args.resolution)
    if not 0 < args.fov < math.pi:
        raise InputError("--fov", "radians between 0 and pi", args.fov)
    if args.radius <= 0:
        raise InputError("--radius", "a distance above 0", args.radius)
    if args.fps < 1:
        raise InputError("--fps", "at least 1", args.fps)
    background = parse_color(args.background)
    device = resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    check_writable(args.out)
    gaussians = read_ply(args.file).to(device)
    if views == 1:
        cameras = orbit_cameras([args.azimuth], args.elevation, args.radius, args.fov, args.resolution)
    else:
        cameras = turntable(
            views,
            args.resolution,
            elevation=args.elevation,
            radius=args.radius,
            fov=args.fov,
            start=args.azimuth,
        )
    images = render_views(gaussians, cameras, background, renderer)
    if suffix == ".mp4":
        write_mp4(images, args.out, args.fps)
    else:
        sheet = list(images)
        write_png(contact_sheet(sheet, columns=min(4, len(sheet))), args.out)
    print(args.out)
    return 0
