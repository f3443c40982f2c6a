"""`report DIR`: the objects of a work list in one HTML file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from ..report import read_rows, write_report
from .options import check_writable


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("report", help="the objects of a work list in one HTML file")
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `batch` made")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="default: DIR/report.html")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the index, squeeze the films, write the page."""
    from tqdm import tqdm

    out = args.out or args.folder / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError("--out", "a name that ends in .html", out)
    rows, title = read_rows(args.folder)
    check_writable(out)
    with tqdm(total=len(rows), unit="object", leave=False, file=sys.stderr) as bar:
        write_report(rows, title, out, bar.update)
    print(out)
    return 0
