"""`convert IN OUT`: a splat in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..formats import READABLE, WRITABLE, load_gaussians, read_metadata, save_gaussians, splat_suffix
from .options import check_writable


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("convert", help="a splat in another format")
    parser.add_argument("file", type=Path, metavar="IN", help=f"a splat: {', '.join(READABLE)}")
    parser.add_argument("out", type=Path, metavar="OUT", help=f"its name says the format: {', '.join(WRITABLE)}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, write, and take along what was recorded with the splat."""
    if splat_suffix(args.out) not in WRITABLE:
        raise InputError("OUT", f"a name that ends in {', '.join(WRITABLE)}", args.out)
    if args.out.is_dir():
        raise InputError("OUT", "the name of a file", f"{args.out}, which is a folder")
    check_writable(args.out, "OUT")
    gaussians = load_gaussians(args.file, "IN")
    save_gaussians(gaussians, args.out, metadata=read_metadata(args.file) or None, field="OUT")
    print(args.out)
    return 0
