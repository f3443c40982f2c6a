"""Speed of the renderers on a CPU: `python -m benchmarks.rasterizer [--json FILE]`.

Renders one view of N Gaussians on the unit sphere (colour and depth) and back-propagates, with

* numba: the portable renderer;
* C++: the same, with its two blending kernels in C++ (cpp/blending.cpp, g++ -O3 -march=native -fopenmp) in the place of
  numba's; projection, binning and the sum of the gradient slots stay numba's. Of both the time inside the blending
  kernels is taken as well;
* torch: the fallback;
* gsplat reference: gsplat's torch reference, whose CUDA-only parts are replaced by stand-ins.

The renderers take turns, so that other load on the machine hits all.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from benchmarks import cpp_blending
from benchmarks.report import machine, print_table
from dreamer_core.cameras import Cameras, orbit_cameras
from dreamer_core.rendering import RasterizeCall, numba_backend, rasterize
from dreamer_core.rendering.torch_backend import sort_into_tiles

Clock = Callable[[], float]
CASES = (*((n, r) for n in (5_000, 20_000, 100_000) for r in (128, 256, 512)), (100_000, 1024))
TARGET_MEDIAN, TARGET_LEAST, TARGET_CPP = 40.0, 25.0, 1.1
TOLERANCES = {"C++": (1e-5, 1e-3)}
LOOSE = (2e-3, 3e-2)
"""Differences to numba's image and gradients, relative to their norms. C++ works on the same lists. The others compute
depths with other rounding, so that Gaussians of nearly equal depth change places: at 100,000 Gaussians and 128 pixels
in 71 pixels of 16,384, which makes 7e-4 and 1.1e-2."""

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
        given: dict[str, Any] = {**scene, "viewmats": camera.viewmats, "Ks": camera.Ks}
        out = rasterize(RasterizeCall(**given, width=camera.width, height=camera.height, depth=True), backend)
        assert out.depth_sums is not None  # as `depth` is asked for
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
    projected = _fully_fused_projection(scene["means"], covariances, camera.viewmats, camera.Ks, width, height)
    radii, means2d, depths, conics = (x[0] for x in projected[:4])
    opacities = scene["opacities"]
    tiles = sort_into_tiles(means2d.detach(), radii, depths.detach(), width, height, tile=16)
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
    "C++": product("numba"),
    "torch": product("torch"),
    "gsplat reference": gsplat_reference,
}


@contextmanager
def blending_timed(name: str, clock: Clock) -> Iterator[dict[str, float]]:
    """Milliseconds inside the blending kernels; for "C++" these replace numba's."""
    spent: dict[str, float] = {}
    kernels = numba_backend.blending
    source: Any = cpp_blending if name == "C++" else kernels

    def timed(kernel: Callable[..., None], stage: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            start = clock()
            kernel(*args)
            spent[stage] = 1e3 * (clock() - start)

        return call

    forward, backward = timed(source.forward, "blend forward"), timed(source.backward, "blend backward")
    with mock.patch.object(kernels, "forward", forward), mock.patch.object(kernels, "backward", backward):
        yield spent


def run_once(name: str, scene: Scene, camera: Cameras, weights: Image, clock: Clock) -> tuple[dict[str, float], Image]:
    """Milliseconds of one forward and backward pass, and the image; gradients stay in the scene."""
    for leaf in scene.values():
        leaf.grad = None
    with blending_timed(name, clock) as spent:
        start = clock()
        image = RENDERERS[name](scene, camera)
        forward = clock() - start
        torch.autograd.backward(image, weights)
        total = clock() - start
    return {"forward": 1e3 * forward, "both": 1e3 * total, **spent}, image


def differences(name: str, scene: Scene, image: Image, expected: tuple[Tensor, dict[str, Tensor]]) -> dict[str, float]:
    """Differences of the image and of the worst gradient, relative to their norms. Raises where they are too large."""
    found = {"image": float((image[0].detach() - expected[0]).norm() / expected[0].norm()), "gradient": 0.0}
    for key, gradient in expected[1].items():
        leaf = scene[key].grad
        assert leaf is not None
        found["gradient"] = max(found["gradient"], float((leaf - gradient).norm() / gradient.norm()))
    if any(value > limit for value, limit in zip(found.values(), TOLERANCES.get(name, LOOSE))):
        raise RuntimeError(f"{name} and numba disagree: {found}")
    return found


def measure(n: int, resolution: int, names: list[str], repeats: int, clock: Clock, budget: float) -> dict[str, Any]:
    """Medians in milliseconds after one unmeasured run, and how far images and gradients are from numba's.

    A renderer is repeated as often as its share of `budget` seconds allows, at least once.
    """
    scene = make_scene(n)
    camera = orbit_cameras([23.0], 17.0, 3.5, 0.55, resolution)
    g = torch.Generator().manual_seed(1)
    weights = torch.randn(resolution, resolution, 4, generator=g), torch.randn(resolution, resolution, generator=g)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    left = dict.fromkeys(names, repeats)
    expected: tuple[Tensor, dict[str, Tensor]] | None = None
    row: dict[str, Any] = {"gaussians": n, "resolution": resolution, "milliseconds": {}, "runs": {}, "difference": {}}
    for turn in range(repeats + 1):
        for name in names:
            if not left[name]:
                continue
            took, image = run_once(name, scene, camera, weights, clock)
            if turn:
                times[name].append(took)
                left[name] -= 1
                continue
            left[name] = max(1, min(repeats, int(budget / (1e-3 * took["both"]))))
            if name == "numba":
                gradients = {key: leaf.grad for key, leaf in scene.items() if leaf.grad is not None}
                expected = image[0].detach(), gradients
            elif expected is not None:
                row["difference"][name] = differences(name, scene, image, expected)
    for name, values in times.items():
        row["milliseconds"][name] = {key: round(statistics.median(v[key] for v in values), 2) for key in values[0]}
        row["runs"][name] = len(values)
    return row


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """What is compared with the targets: the reference's time over ours, and our blending time over C++'s."""
    ms = row["milliseconds"]
    found: dict[str, float] = {}
    for other in ("torch", "gsplat reference"):
        if "numba" in ms and other in ms:
            for key in ("forward", "both"):
                found[f"{other} / numba, {key}"] = ms[other][key] / ms["numba"][key]
    if "torch" in ms and "gsplat reference" in ms:
        found["gsplat reference / torch, both"] = ms["gsplat reference"]["both"] / ms["torch"]["both"]
    if "numba" in ms and "C++" in ms:
        blend = {name: (ms[name]["blend forward"], ms[name]["blend backward"]) for name in ("numba", "C++")}
        found["numba / C++, blend forward"] = blend["numba"][0] / blend["C++"][0]
        found["numba / C++, blend both"] = sum(blend["numba"]) / sum(blend["C++"])
    return {key: round(value, 2) for key, value in found.items()}


def print_summary(rows: list[dict[str, Any]]) -> None:
    """Median, least and largest of every ratio, and the targets."""
    collected: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row["ratios"].items():
            collected.setdefault(key, []).append(value)
    if not collected:
        return
    table = [
        {"ratio": key, "median": statistics.median(v), "least": min(v), "largest": max(v), "cases": len(v)}
        for key, v in collected.items()
    ]
    print()
    print_table(table)
    print(
        f"Targets: gsplat reference / numba at least {TARGET_MEDIAN:g} in the median and never below "
        f"{TARGET_LEAST:g}; numba / C++ at most {TARGET_CPP:g}."
    )


def choose_renderers(text: str) -> list[str]:
    """The renderers asked for, without those that cannot work here, which is said."""
    names = text.split(",")
    unknown = [name for name in names if name not in RENDERERS]
    if unknown:
        raise SystemExit(f"--renderers: expected some of {', '.join(RENDERERS)}, got {', '.join(unknown)}")
    if "C++" in names:
        try:
            cpp_blending.library()
        except RuntimeError as error:
            print(f"C++ is left out: {error}.")
            names.remove("C++")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds per renderer and case: fewer runs above it")
    parser.add_argument("--cap", type=float, default=12.0, help="seconds; a run expected to take longer is skipped")
    parser.add_argument("--renderers", default=",".join(RENDERERS), help="comma separated, out of: %(default)s")
    parser.add_argument("--cases", help="comma separated GAUSSIANSxRESOLUTION, e.g. 20000x512")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for busy machines")
    args = parser.parse_args()
    clock = time.thread_time if args.cpu_time else time.perf_counter
    if args.cpu_time:
        numba.set_num_threads(1)
        torch.set_num_threads(1)
    names = choose_renderers(args.renderers)
    cases = CASES
    if args.cases:
        cases = tuple((int(n), int(r)) for n, r in (case.split("x") for case in args.cases.split(",")))
    print(f"{'Gaussians':>10} {'size':>5}  " + "  ".join(f"{name:>18}" for name in names) + "   ms, forward / both")
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for n, resolution in cases:
        chosen = []
        for name in names:
            expected = expected_seconds(rows, name, n, resolution)
            if expected > args.cap:
                skipped.append(
                    f"{name} at {n} x {resolution}: about {expected:.0f} s expected, the cap is {args.cap:g}"
                )
            else:
                chosen.append(name)
        row = measure(n, resolution, chosen, args.repeats, clock, args.budget)
        row["ratios"] = ratios(row)
        rows.append(row)
        cells = []
        for name in names:
            cell = row["milliseconds"].get(name)
            text = f"{cell['forward']:.1f} / {cell['both']:.1f}" if cell else "skipped"
            cells.append(f"{text:>18}")
        print(f"{n:>10} {resolution:>5}  " + "  ".join(cells), flush=True)
    print_summary(rows)
    for line in skipped:
        print(f"Skipped: {line}.")
    threads = 1 if args.cpu_time else numba.get_num_threads()
    print(", ".join(f"{name} {value}" for name, value in {**machine(), "threads": threads}.items()))
    if args.json:
        record = {
            "machine": machine(), "threads": threads, "clock": "processor time" if args.cpu_time else "wall clock",
            "rows": rows, "skipped": skipped,
        }  # fmt: skip
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def expected_seconds(rows: list[dict[str, Any]], name: str, n: int, resolution: int) -> float:
    """What a run will take, from the largest case measured with at most as many Gaussians: it grows with the pixels."""
    known = [
        (row["resolution"] ** 2, row["milliseconds"][name]["both"])
        for row in rows
        if name in row["milliseconds"] and row["gaussians"] <= n and row["resolution"] < resolution
    ]
    if not known:
        return 0.0
    pixels, milliseconds = max(known)
    return 1e-3 * milliseconds * resolution**2 / pixels


if __name__ == "__main__":
    main()
