"""`info FILE`: what a splat file holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ..formats import READABLE, load_gaussians, read_metadata, splat_format
from ..gaussians import Gaussians


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("info", help="what a splat file holds")
    parser.add_argument("file", type=Path, metavar="FILE", help=f"a splat: {', '.join(READABLE)}")
    parser.set_defaults(run=run)


def describe(gaussians: Gaussians) -> dict[str, str]:
    """Facts about a scene, ready to print."""

    def spread(values: torch.Tensor) -> str:
        low, mid, high = torch.quantile(values[:1_000_000].float(), torch.tensor([0.05, 0.5, 0.95])).tolist()
        return f"{mid:.4g} (5 %: {low:.4g}, 95 %: {high:.4g})"

    low, high = gaussians.means.amin(0).tolist(), gaussians.means.amax(0).tolist()
    return {
        "Gaussians": f"{len(gaussians):,}",
        "SH degree": str(gaussians.sh_degree),
        "bounds": ", ".join(f"{a} {x:.3f} .. {y:.3f}" for a, x, y in zip("XYZ", low, high)),
        "scale, median": spread(gaussians.scales.mean(dim=1)),
        "opacity, median": spread(gaussians.opacities),
        "mean colour": ", ".join(f"{v:.3f}" for v in gaussians.rgb.mean(dim=0).tolist()),
    }


def format_name(path: Path) -> str:
    """What kind of file it is, and its size."""
    found = splat_format(path)
    return f"{path.suffix[1:] if found is None else found.title}, {path.stat().st_size:,} bytes"


def run(args: argparse.Namespace) -> int:
    """Print a table, then what was recorded with the splat."""
    facts = describe(load_gaussians(args.file))
    print(args.file)
    for name, value in {"format": format_name(args.file), **facts}.items():
        print(f"  {name:<16} {value}")
    for name, value in read_metadata(args.file).items():
        print(f"  {name:<16} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return 0
