"""gsplat on a CUDA device: `python -m benchmarks.gsplat_cuda [--json FILE]`.

Forward and backward of all views in one call, packed and not, and numba on the CPU for the same Gaussians; images and
gradients of gsplat against numba's. The product calls gsplat unpacked, because density control needs the statistics of
every Gaussian in every view: this says what that costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.rasterizer import make_scene
from benchmarks.report import finish, wait
from dreamer_core.cameras import Cameras, turntable
from dreamer_core.rendering import RasterizeCall, gsplat_backend, rasterize

CASES = ((20_000, 512, 1), (20_000, 512, 4), (100_000, 1024, 1), (100_000, 1024, 4), (300_000, 1024, 4))
"""Gaussians, pixels per side, views."""


def draw(
    scene: dict[str, Tensor], cameras: Cameras, weights: Tensor, backend: str
) -> tuple[float, Tensor, dict[str, Tensor]]:
    """Seconds of one forward and backward pass, the image [C, H, W, 4] of colour and depth, the gradients."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in scene.items()}
    device = weights.device
    wait(device)
    start = time.perf_counter()
    given: dict[str, Any] = {**leaves, "viewmats": cameras.viewmats, "Ks": cameras.Ks}
    out = rasterize(RasterizeCall(**given, width=cameras.width, height=cameras.height, depth=True), backend)
    assert out.depth_sums is not None  # as `depth` is asked for
    image = torch.cat([out.colors, out.depth_sums], dim=-1)
    gradients = torch.autograd.grad(image, list(leaves.values()), weights)
    wait(device)
    seconds = time.perf_counter() - start
    return seconds, image.detach().cpu(), {name: found.cpu() for name, found in zip(leaves, gradients)}


def packed() -> Any:
    """Patches the backend to call gsplat packed."""
    call: Callable[..., Any] = gsplat_backend._call
    return mock.patch.object(gsplat_backend, "_call", lambda *args, **kw: call(*args, **kw, packed=True))


def measure(n: int, resolution: int, views: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    scene = {name: value.detach() for name, value in make_scene(n).items()}
    cameras = turntable(views, resolution)
    weights = torch.randn(views, resolution, resolution, 4, generator=torch.Generator().manual_seed(1))
    there = {name: value.to(device) for name, value in scene.items()}
    given = there, cameras.to(device), weights.to(device)

    def timed(*arguments: Any) -> tuple[float, Tensor, dict[str, Tensor]]:
        draw(*arguments)  # compiles, and fills caches
        runs = [draw(*arguments) for _ in range(repeats)]
        return statistics.median(seconds for seconds, _, _ in runs), runs[-1][1], runs[-1][2]

    seconds, image, gradients = timed(*given, "gsplat")
    with packed():
        packed_seconds, packed_image, _ = timed(*given, "gsplat")
    numba_seconds, expected, wanted = timed(scene, cameras, weights, "numba")
    return {
        "Gaussians": n,
        "resolution": resolution,
        "views": views,
        "gsplat ms": 1e3 * seconds,
        "packed ms": 1e3 * packed_seconds,
        "numba ms": 1e3 * numba_seconds,
        "image": float((image - expected).norm() / expected.norm()),
        "packed image": float((packed_image - expected).norm() / expected.norm()),
        "gradient": max(float((gradients[k] - wanted[k]).norm() / wanted[k].norm()) for k in wanted),
    }


def main() -> None:
    """Differences are relative to the norm of numba's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    reason = gsplat_backend.unusable_reason(device, load=True)
    if reason:
        raise SystemExit(f"benchmarks.gsplat_cuda needs gsplat on a CUDA device: {reason}")
    finish([measure(*case, device, args.repeats) for case in CASES], args.json)


if __name__ == "__main__":
    main()
