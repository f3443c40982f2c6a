"""How good the meshes of fitted splats are: `python -m starter.meshes`.

Gaussians are fitted to the world's own pictures of an object; their mesh is compared with the object's true surface and
with the splat's own pictures, from cameras that neither fit nor mesh has used.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dreamer_core.cameras import turntable
from dreamer_core.files import write_atomically
from dreamer_core.formats import load_gaussians, save_gaussians
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import initial_shape
from dreamer_core.meshes import MeshConfig, TexturedMesh, build_mesh, save_mesh
from dreamer_core.meshes.looks import Extent, cameras_around
from dreamer_core.meshes.pictures import pictures
from dreamer_core.optimize import PRESETS, OptimizationState
from dreamer_core.optimize.presets import STARTER_TRAJECTORY
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.rendering import render

from .dataset import WORK
from .shapes import KINDS
from .studies import prompts_20
from .world import (
    COLOURS,
    KIND_NAMES,
    PATTERNS,
    SECOND,
    Subject,
    camera_rays,
    colourise,
    random_backgrounds,
    render_layers,
    training_cameras,
    union_distance,
)

BATCH = 4
"""Views per step of the fit."""
BANK = 72
"""True pictures that the fit draws from."""
RESOLUTION = 512
"""Pixels per side of the pictures that are compared."""
SPACING = 0.015
"""Of the points on the true surface."""
SAMPLES = 30_000
"""Points on the mesh's surface."""


def fit(subject: Subject, steps: int, count: int, seed: int = 0) -> Gaussians:
    """Gaussians fitted to true pictures by the learning rates of `STARTER_TRAJECTORY`."""
    rates = STARTER_TRAJECTORY.learning_rates
    state = OptimizationState.create(initial_shape("sphere", count, step_generator(seed, 0, "init")), rates)
    generator = torch.Generator().manual_seed(seed)
    cameras = training_cameras(BANK, generator)
    layers = render_layers(subject.kind, cameras)
    first, second = (torch.tensor(table[subject.colour]).expand(BATCH, 3) for table in (COLOURS, SECOND))
    pattern = torch.full((BATCH,), PATTERNS.index(subject.pattern))
    for _ in range(steps):
        chosen = torch.randint(0, BANK, (BATCH,), generator=generator).tolist()
        backgrounds = random_backgrounds(BATCH, generator)
        true = colourise(layers[chosen], pattern, first, second, backgrounds)
        pictures = render(state.gaussians, cameras.at(chosen), backgrounds=backgrounds).colors
        (100 * (pictures - true).abs().mean()).backward()
        state.descend(rates, steps)
        state.step += 1
    return state.gaussians.detach()


def true_points(kind: str, views: int = 40, resolution: int = 160) -> NDArray[np.float32]:
    """Points [N, 3] on what can be seen of the true surface from all around, evenly spread."""
    ball = Extent(torch.full((3,), -0.62), torch.full((3,), 0.62))
    origin, direction = (x.reshape(-1, 3) for x in camera_rays(cameras_around(ball, views, resolution)))
    along = -(origin * direction).sum(-1)
    t, active = (along - 1.2).clamp_min(0), torch.arange(len(origin))
    for _ in range(200):
        distance = union_distance(KINDS[kind](origin[active] + t[active, None] * direction[active]))
        t[active] += 0.9 * distance
        active = active[(distance > 5e-4) & (t[active] < along[active] + 1.2)]
        if not len(active):
            break
    points = origin + t[:, None] * direction
    points = points[union_distance(KINDS[kind](points)).abs() < 2e-3]
    cells, which = torch.unique((points / SPACING).round(), dim=0, return_inverse=True)
    order = torch.arange(len(points))
    first = torch.full((len(cells),), len(points)).scatter_reduce(0, which, order, "amin")
    return points[first].numpy()


@dataclass(frozen=True)
class Quality:
    """Of one mesh."""

    triangles: int
    watertight: bool
    to_truth: float
    """Mean distance of the mesh's points to the true surface, as a share of the object's longest side."""
    from_truth: float
    """The other way round."""
    psnr: float
    """dB of the texture: against the splat's colours without its transparency, where both the mesh and the splat
    (coverage above one half) show something."""
    psnr_white: float
    """The same against the splat on white: its soft outlines count."""
    psnr_union: float
    """The same over pixels that either shows: outlines that do not meet count, too."""
    seconds: float
    """Processor time of the mesh alone, all threads added."""


def mesh_points(mesh: TexturedMesh, seed: int = 0) -> NDArray[np.float64]:
    """Points evenly spread over the mesh's surface."""
    import trimesh

    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, _ = trimesh.sample.sample_surface(body, SAMPLES, seed=seed)
    return np.asarray(points)


def measure(splat: Gaussians, kind: str, config: MeshConfig) -> tuple[Quality, TexturedMesh]:
    """The quality of a splat's mesh, which has to stay where the splat is, in its units."""
    from scipy.spatial import cKDTree

    before = time.process_time()
    mesh = build_mesh(splat, config)
    seconds = time.process_time() - before
    truth = true_points(kind)
    points = mesh_points(mesh)
    size = float(np.ptp(truth, axis=0).max())
    cameras = turntable(6, RESOLUTION, elevation=20.0, radius=3.6, fov=0.61, start=7.0)
    with torch.no_grad():
        splats = render(splat, cameras)
    shown, covered = pictures(mesh, cameras)
    solid, alphas = splats.alphas[..., 0] > 0.5, splats.alphas
    pure, on_white = (splats.colors / alphas.clamp_min(1e-6)).clamp(0, 1), (splats.colors + 1 - alphas).clamp(0, 1)

    def psnr(true: Tensor, where: Tensor) -> float:
        return float(-10 * (shown - true)[where].square().mean().log10())

    return Quality(
        triangles=len(mesh.faces),
        watertight=mesh.watertight,
        to_truth=float(cKDTree(truth).query(points)[0].mean() / size),
        from_truth=float(cKDTree(points).query(truth)[0].mean() / size),
        psnr=psnr(pure, covered & solid),
        psnr_white=psnr(on_white, covered & solid),
        psnr_union=psnr(on_white, covered | solid),
        seconds=seconds,
    ), mesh


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.meshes", description=__doc__)
    parser.add_argument(
        "--kinds", nargs="+", choices=KIND_NAMES, default=["mug", "teapot", "chair", "duck", "airplane"]
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=PRESETS["starter"].count)
    parser.add_argument("--out", type=Path, default=WORK / "meshes")
    options = parser.parse_args(arguments)
    subjects = {s.kind: s for s in prompts_20()[: len(KIND_NAMES)]}
    found = {}
    for kind in tqdm(options.kinds, desc="meshes"):
        file = options.out / f"{kind}.ply"
        if not file.exists():
            save_gaussians(fit(subjects[kind], options.steps, options.count), file)
        quality, mesh = measure(load_gaussians(file), kind, MeshConfig(origin="splat", size=0.0))
        save_mesh(mesh, options.out / f"{kind}.glb")
        found[subjects[kind].prompt()] = asdict(quality)
        write_atomically(options.out / "meshes.json", lambda path: path.write_text(json.dumps(found, indent=1) + "\n"))
    for prompt, row in found.items():
        print(prompt, {key: round(value, 4) for key, value in row.items()})


if __name__ == "__main__":
    main()
