"""Speed of the renderers on a CPU: `python -m benchmarks.rasterizer [--json FILE]`.

Renders one view of N Gaussians on the unit sphere (colour and depth) and back-propagates, with the numba renderer, the
torch renderer and gsplat's torch reference. The renderers take turns, so that other load on the machine hits all.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from benchmarks.report import machine
from dreamer_core.cameras import Cameras, orbit_cameras
from dreamer_core.rendering import rasterize
from dreamer_core.rendering.torch_backend import sort_into_tiles

CASES = ((5_000, 256), (20_000, 256), (20_000, 512), (100_000, 128), (100_000, 512))
LARGE = ((100_000, 1024), (300_000, 1024))
SLOW_SECONDS = 20.0
"""A renderer that took longer than this is not repeated."""

Scene = dict[str, Tensor]
Image = tuple[Tensor, Tensor]  # [H, W, 4] colour and depth, [H, W] alpha


def make_scene(n: int) -> Scene:
    """Mid-optimisation Gaussians: 3DGS's initial size for n points on a sphere, anisotropic, of mixed opacity."""
    g = torch.Generator().manual_seed(0)
    values = {
        "means": torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1),
        "scales": math.sqrt(8 / n) * torch.exp(0.3 * torch.randn(n, 3, generator=g)),
        "opacities": torch.sigmoid(1.5 * torch.randn(n, generator=g)),
        "quats": torch.randn(n, 4, generator=g),
        "colors": torch.rand(n, 3, generator=g),
    }
    return {name: value.requires_grad_(True) for name, value in values.items()}


def product(backend: str) -> Callable[[Scene, Cameras], Image]:
    def draw(scene: Scene, camera: Cameras) -> Image:
        out = rasterize(
            **scene,
            viewmats=camera.viewmats,
            Ks=camera.Ks,
            width=camera.width,
            height=camera.height,
            depth=True,
            backend=backend,
        )
        return torch.cat([out.colors, out.depth_sums], dim=-1)[0], out.alphas[0, ..., 0]

    return draw


@njit(cache=True)
def pixel_pairs(
    means2d: Any, conics: Any, opacities: Any, width: Any, height: Any, columns: Any, starts: Any, ids: Any,
    gaussian: Any, pixel: Any,
) -> Any:  # fmt: skip
    """Stand-in for gsplat's CUDA-only `rasterize_to_indices_in_range`; counts only where the outputs are empty."""
    n = 0
    for tile in range(starts.shape[0] - 1):
        left, top = tile % columns * 16, tile // columns * 16
        for y in range(top, min(top + 16, height)):
            for x in range(left, min(left + 16, width)):
                T = np.float32(1)
                for k in range(starts[tile], starts[tile + 1]):
                    g = ids[k]
                    dx, dy = means2d[g, 0] - np.float32(x + 0.5), means2d[g, 1] - np.float32(y + 0.5)
                    s = np.float32(0.5) * (conics[g, 0] * dx * dx + conics[g, 2] * dy * dy) + conics[g, 1] * dx * dy
                    alpha = min(np.float32(0.999), opacities[g] * math.exp(-s))
                    if s < 0 or alpha < np.float32(1 / 255):
                        continue
                    after = T * (1 - alpha)
                    if after <= np.float32(1e-4):
                        break
                    if gaussian.shape[0] > 0:
                        gaussian[n], pixel[n] = g, y * width + x
                    n += 1
                    T = after
    return n


def gsplat_reference(scene: Scene, camera: Cameras) -> Image:
    """gsplat 1.5.3's torch reference. As shipped it does not run on a CPU: the search for the (pixel, Gaussian) pairs
    and nerfacc's two segment operations are replaced by stand-ins here."""
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    width, height = camera.width, camera.height
    covariances, _ = _quat_scale_to_covar_preci(scene["quats"], scene["scales"], True, False)
    radii, means2d, depths, conics, _ = (
        x if x is None else x[0]
        for x in _fully_fused_projection(scene["means"], covariances, camera.viewmats, camera.Ks, width, height)
    )
    opacities = scene["opacities"]
    tiles = sort_into_tiles(means2d.detach(), radii, depths.detach(), width, height)
    arrays = [x.detach().contiguous().numpy() for x in (means2d, conics, opacities)]
    lists = (width, height, tiles.columns, tiles.starts.numpy(), tiles.ids.numpy())
    nothing = np.empty(0, np.int64)
    count = pixel_pairs(*arrays, *lists, nothing, nothing)
    found = np.empty((2, count), np.int64)
    pixel_pairs(*arrays, *lists, found[0], found[1])
    g, p = torch.from_numpy(found)
    # From here on gsplat's `accumulate`.
    deltas = torch.stack([p % width, p // width], dim=-1) + 0.5 - means2d[g]
    c = conics[g]
    sigmas = 0.5 * (c[:, 0] * deltas[:, 0] ** 2 + c[:, 2] * deltas[:, 1] ** 2)
    sigmas = sigmas + c[:, 1] * deltas[:, 0] * deltas[:, 1]
    alphas = torch.clamp_max(opacities[g] * torch.exp(-sigmas), 0.999)
    logs = torch.log1p(-alphas).double()
    before = torch.cumsum(logs, 0) - logs
    first = torch.ones_like(p, dtype=torch.bool)
    first[1:] = p[1:] != p[:-1]
    weights = alphas * torch.exp(before - before[first][torch.cumsum(first, 0) - 1]).float()
    features = torch.cat([scene["colors"], depths[:, None]], dim=-1)
    image = torch.zeros(width * height, 4).index_add(0, p, weights[:, None] * features[g])
    alpha = torch.zeros(width * height).index_add(0, p, weights)
    return image.view(height, width, 4), alpha.view(height, width)


RENDERERS: dict[str, Callable[[Scene, Cameras], Image]] = {
    "numba": product("numba"),
    "torch": product("torch"),
    "gsplat reference": gsplat_reference,
}


def measure(n: int, resolution: int, names: list[str], repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Medians in milliseconds after one unmeasured run, and how far the images are from each other."""
    scene = make_scene(n)
    camera = orbit_cameras([23.0], 17.0, 3.5, 0.55, resolution)
    g = torch.Generator().manual_seed(1)
    weights = torch.randn(resolution, resolution, 4, generator=g), torch.randn(resolution, resolution, generator=g)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    images: dict[str, Tensor] = {}
    skipped: set[str] = set()
    for turn in range(repeats + 1):
        for name in names:
            if name in skipped:
                continue
            for leaf in scene.values():
                leaf.grad = None
            start = clock()
            image = RENDERERS[name](scene, camera)
            forward = clock() - start
            torch.autograd.backward(image, weights)
            total = clock() - start
            images[name] = image[0].detach()
            if turn > 0 or total > SLOW_SECONDS:
                times[name].append((1e3 * forward, 1e3 * total))
            if total > SLOW_SECONDS:
                skipped.add(name)
    row: dict[str, Any] = {"gaussians": n, "resolution": resolution, "milliseconds": {}}
    for name, values in times.items():
        forward, total = (statistics.median(x) for x in zip(*values))
        row["milliseconds"][name] = {"forward": round(forward, 1), "forward and backward": round(total, 1)}
    if "numba" in images:
        row["largest difference to numba"] = {
            name: float((image - images["numba"]).abs().max()) for name, image in images.items() if name != "numba"
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--renderers", default=",".join(RENDERERS), help="comma separated, out of: %(default)s")
    parser.add_argument("--cases", help="comma separated GAUSSIANSxRESOLUTION, e.g. 20000x512")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for busy machines")
    args = parser.parse_args()
    clock = time.thread_time if args.cpu_time else time.perf_counter
    if args.cpu_time:
        numba.set_num_threads(1)
        torch.set_num_threads(1)
    names = args.renderers.split(",")
    runs = [(case, names) for case in CASES] + [(case, [n for n in names if n == "numba"]) for case in LARGE]
    if args.cases:
        runs = [((int(n), int(r)), names) for n, r in (case.split("x") for case in args.cases.split(","))]
    print(f"{'Gaussians':>10} {'size':>5}  " + "  ".join(f"{name:>20}" for name in names) + "   ms, forward / both")
    rows = []
    for (n, resolution), chosen in runs:
        if not chosen:
            continue
        row = measure(n, resolution, chosen, args.repeats, clock)
        rows.append(row)
        cells = []
        for name in names:
            cell = row["milliseconds"].get(name)
            text = f"{cell['forward']:.1f} / {cell['forward and backward']:.1f}" if cell else "-"
            cells.append(f"{text:>20}")
        print(f"{n:>10} {resolution:>5}  " + "  ".join(cells), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
