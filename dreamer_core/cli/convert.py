"""`convert IN OUT`: a splat in another format, or as a mesh."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ..errors import InputError
from ..formats import READABLE, WRITABLE, load_gaussians, read_metadata, save_gaussians, splat_suffix
from ..gaussians import Gaussians
from ..meshes import SUFFIX, MeshConfig, build_mesh, require_packages, save_mesh
from .mesh_options import add_mesh_options, chosen_mesh
from .options import add_device_options, check_renderer, check_writable, resolve_device

CLIPPED = 0.1
"""By which a value lies beyond what a file holds, rounding apart."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("convert", help="a splat in another format, or as a mesh")
    parser.add_argument("file", type=Path, metavar="IN", help=f"a splat: {', '.join(READABLE)}")
    kinds = f"{', '.join(WRITABLE)}; a closed, textured mesh: {SUFFIX}"
    parser.add_argument("out", type=Path, metavar="OUT", help=f"its name says the format: {kinds}")
    add_mesh_options(parser)
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, write, and take along what was recorded with the splat."""
    suffix = splat_suffix(args.out)
    if suffix not in (*WRITABLE, SUFFIX):
        raise InputError("OUT", f"a name that ends in {', '.join((*WRITABLE, SUFFIX))}", args.out)
    if args.out.is_dir():
        raise InputError("OUT", "the name of a file", f"{args.out}, which is a folder")
    check_writable(args.out, "OUT")
    config = chosen_mesh(args, suffix == SUFFIX)
    if suffix == SUFFIX:
        require_packages("OUT")
    gaussians = load_gaussians(args.file, "IN")
    if suffix == SUFFIX:
        _write_mesh(gaussians, config, args)
    else:
        save_gaussians(gaussians, args.out, metadata=read_metadata(args.file) or None, field="OUT")
        for told in losses(gaussians, load_gaussians(args.out)):
            print(f"{args.out.name}: {told}", file=sys.stderr)
    print(args.out)
    return 0


def _write_mesh(gaussians: Gaussians, config: MeshConfig, args: argparse.Namespace) -> None:
    device = resolve_device(args.device)
    renderer = check_renderer(args.renderer, device)
    with tqdm(total=config.views, desc="views", unit="view") as bar:
        mesh = build_mesh(gaussians.to(device), config, renderer, lambda: bar.update() and None, field="IN")
    save_mesh(mesh, args.out, read_metadata(args.file))
    print(mesh.described())


def losses(before: Gaussians, after: Gaussians) -> Iterator[str]:
    """What a format could not hold of a splat: `after` is the file, read again."""
    if len(after) < len(before):
        yield f"{len(before) - len(after):,} of {len(before):,} Gaussians, nearly transparent, are left out"
    if after.sh_degree < before.sh_degree:
        yield f"view-dependent colours of degree {before.sh_degree} are kept to degree {after.sh_degree}"
    for name, mine, theirs in (
        ("colours", before.rgb, after.rgb),
        ("sizes (logarithms)", before.log_scales, after.log_scales),
    ):
        low, high = float(theirs.min()), float(theirs.max())
        beyond = len(before) == len(after) and int(((mine < low - CLIPPED) | (mine > high + CLIPPED)).any(-1).sum())
        if beyond:
            yield f"{name} of {beyond:,} Gaussians are cut off at {low:.3g} and {high:.3g}"
