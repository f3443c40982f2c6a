"""`info FILE`: what a splat file holds."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..formats import read_ply
from ..gaussians import Gaussians


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("info", help="what a splat file holds")
    parser.add_argument("file", type=Path, metavar="FILE", help="a Gaussian splat .ply")
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


def run(args: argparse.Namespace) -> int:
    """Print a table."""
    print(args.file)
    for name, value in describe(read_ply(args.file)).items():
        print(f"  {name:<16} {value}")
    return 0
