"""Ways from a splat to a surface, ours and those of other libraries: `python -m benchmarks.surfaces SPLAT...`.

The splats are those that `python -m starter.meshes` fitted, named after their kind (mug.ply). All ways get the same
pictures, and cells of about the same size. open3d, pymeshlab and fast-simplification are needed here and nowhere else.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.report import finish
from dreamer_core.formats import load_gaussians
from dreamer_core.frames import flip_frame
from dreamer_core.gaussians import Gaussians
from dreamer_core.meshes import MeshConfig
from dreamer_core.meshes.fusion import BAND, Grid, fuse, grid_around
from dreamer_core.meshes.looks import SOLID, Looks, cameras_around, extent, look_around
from dreamer_core.meshes.packages import package
from dreamer_core.meshes.surface import Surface, decimate, extract, smoothed, solid_field
from dreamer_core.rendering.torch_backend import rotation_matrices
from starter.meshes import true_points

POINTS = 200_000
"""Of the oriented points that Poisson's methods get."""
DEPTH = 8
"""Of their octree; the default of both libraries."""
LEVEL = 0.5
"""Of the density where its surface lies."""
SAMPLES = 30_000
CONFIG = MeshConfig()


@dataclass(frozen=True)
class Given:
    """What every way starts from."""

    splat: Gaussians
    looks: Looks
    grid: Grid


@dataclass(frozen=True)
class Row:
    """One surface, measured."""

    kind: str
    way: str
    triangles: int
    watertight: bool
    chamfer: float
    """Mean of both mean distances to and from the true surface, as a share of the object's longest side."""
    seconds: float
    """Processor time without the pictures, all threads added."""


# Surfaces
def fusion(given: Given) -> Surface:
    """The pack's own."""
    field = solid_field(fuse(given.looks, given.grid).numpy(), CONFIG.smallest_part)
    return extract(smoothed(field, CONFIG.smooth), given.grid)


def open3d_tsdf(given: Given) -> Surface:
    """Open3D's fusion of the same depths."""
    o3d = package("open3d")
    grid, cameras = given.grid, given.looks.cameras
    cells = max(grid.shape)
    volume = o3d.pipelines.integration.UniformTSDFVolume(
        length=cells * grid.cell,
        resolution=cells,
        sdf_trunc=BAND * grid.cell,
        color_type=o3d.pipelines.integration.TSDFVolumeColorType.NoColor,
        origin=grid.origin.double().numpy()[:, None],
    )
    for view in range(len(given.looks)):
        depth = np.ascontiguousarray(_depth(given.looks, view).numpy(), dtype=np.float32)
        blank = o3d.geometry.Image(np.zeros((*depth.shape, 3), dtype=np.uint8))
        picture = o3d.geometry.RGBDImage.create_from_color_and_depth(
            blank, o3d.geometry.Image(depth), depth_scale=1.0, depth_trunc=1e3, convert_rgb_to_intensity=False
        )
        k = cameras.Ks[view].double().numpy()
        lens = o3d.camera.PinholeCameraIntrinsic(
            cameras.width, cameras.height, k[0, 0], k[1, 1], k[0, 2] - 0.5, k[1, 2] - 0.5
        )
        volume.integrate(picture, lens, cameras.viewmats[view].double().numpy())
    made = volume.extract_triangle_mesh()
    return Surface(np.asarray(made.vertices, dtype=np.float32), np.asarray(made.triangles, dtype=np.int64))


def open3d_poisson(given: Given) -> Surface:
    """Open3D's screened Poisson of points of the same depths."""
    o3d = package("open3d")
    points, normals = oriented_points(given.looks)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    made, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=DEPTH, n_threads=1)
    return Surface(np.asarray(made.vertices, dtype=np.float32), np.asarray(made.triangles, dtype=np.int64))


def pymeshlab_poisson(given: Given) -> Surface:
    """MeshLab's screened Poisson of the same points."""
    lab = package("pymeshlab")
    points, normals = oriented_points(given.looks)
    meshes = lab.MeshSet(verbose=False)
    meshes.add_mesh(lab.Mesh(vertex_matrix=points, v_normals_matrix=normals))
    meshes.generate_surface_reconstruction_screened_poisson(depth=DEPTH, threads=1)
    made = meshes.current_mesh()
    return Surface(made.vertex_matrix().astype(np.float32), made.face_matrix().astype(np.int64))


def density(given: Given) -> Surface:
    """scikit-image's marching cubes on the sum of the Gaussians, without any picture."""
    splat, grid = given.splat, given.grid
    inverse = rotation_matrices(splat.quats) / splat.scales[:, None, :]  # columns: axes by their deviations
    reach = 3 * splat.scales.amax(-1)
    low = ((splat.means - reach[:, None] - grid.origin) / grid.cell).floor().long()
    high = ((splat.means + reach[:, None] - grid.origin) / grid.cell).ceil().long() + 1
    field = torch.zeros(grid.shape)
    for i in range(len(splat)):
        spans = [slice(max(0, int(a)), min(int(b), n)) for a, b, n in zip(low[i], high[i], grid.shape)]
        axes = [grid.origin[j] + grid.cell * torch.arange(s.start, max(s.start, s.stop)) for j, s in enumerate(spans)]
        away = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - splat.means[i]
        field[spans[0], spans[1], spans[2]] += splat.opacities[i] * torch.exp(
            -0.5 * (away @ inverse[i]).square().sum(-1)
        )
    return extract((LEVEL - field).numpy(), grid)


def trimesh_voxels(given: Given) -> Surface:
    """trimesh: voxels of the same points, filled, and their marching cubes."""
    trimesh = package("trimesh")
    points, _ = oriented_points(given.looks)
    index = np.unique(np.round((points - points.min(0)) / given.grid.cell).astype(int), axis=0)
    made = trimesh.voxel.VoxelGrid(trimesh.voxel.encoding.SparseBinaryEncoding(index)).fill().marching_cubes
    made.merge_vertices()
    places = np.asarray(made.vertices) * given.grid.cell + points.min(0)
    return Surface(places.astype(np.float32), np.asarray(made.faces, dtype=np.int64))


def comfyui(given: Given) -> Surface:
    """ComfyUI's own node Extract Mesh from Splat, with its settings as they come; its vertices welded by place.

    Needs its folder in COMFYUI_PATH, and its Python.
    """
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    package("comfy.cli_args").args.cpu = True
    module = package("comfy_extras.nodes_gaussian_splat")
    flipped = flip_frame(given.splat)
    splat = SimpleNamespace(
        positions=flipped.means[None],
        scales=flipped.scales[None],
        rotations=flipped.quats[None],
        opacities=flipped.opacities[None, :, None],
        sh=flipped.sh[None],
        counts=None,
    )
    defaults = {i.id: i.default for i in module.SplatToMesh.GET_SCHEMA().inputs[1:]}
    order = ("resolution", "kernel", "smooth", "level", "min_component", "min_opacity", "color_sharpen")
    made = module._gaussian_to_mesh(splat, 0, *(defaults[name] for name in order), torch.device("cpu"))
    return Surface.welded(made[0].numpy().astype(np.float32), made[1].numpy().astype(np.int64))[0]


# Fewer triangles
def open3d_fewer(surface: Surface) -> Surface:
    o3d = package("open3d")
    body = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(surface.vertices), o3d.utility.Vector3iVector(surface.faces)
    )
    made = body.simplify_quadric_decimation(CONFIG.triangles)
    return Surface(np.asarray(made.vertices, dtype=np.float32), np.asarray(made.triangles, dtype=np.int64))


def pymeshlab_fewer(surface: Surface) -> Surface:
    lab = package("pymeshlab")
    meshes = lab.MeshSet(verbose=False)
    meshes.add_mesh(lab.Mesh(surface.vertices.astype(np.float64), surface.faces.astype(np.int32)))
    meshes.meshing_decimation_quadric_edge_collapse(targetfacenum=CONFIG.triangles, preservetopology=True)
    made = meshes.current_mesh()
    return Surface(made.vertex_matrix().astype(np.float32), made.face_matrix().astype(np.int64))


def fast_simplification_fewer(surface: Surface) -> Surface:
    module = package("fast_simplification")
    vertices, faces = module.simplify(surface.vertices, surface.faces, target_count=CONFIG.triangles)
    return Surface(vertices.astype(np.float32), faces.astype(np.int64))


def manifold3d_fewer(surface: Surface) -> Surface:
    """The pack's own."""
    return decimate(surface, CONFIG.triangles)


SURFACES: tuple[Callable[[Given], Surface], ...] = (
    fusion, open3d_tsdf, open3d_poisson, pymeshlab_poisson, density, trimesh_voxels,
    comfyui,
)  # fmt: skip
FEWER: tuple[Callable[[Surface], Surface], ...] = (
    manifold3d_fewer, open3d_fewer, pymeshlab_fewer, fast_simplification_fewer,
)  # fmt: skip


# What they share
def _depth(looks: Looks, view: int) -> Tensor:
    """Depth [H, W] of the surface; 0 where there is none."""
    alpha, weighted = looks.planes[view, :2]
    return torch.where(alpha < SOLID, 0.0, weighted / alpha.clamp_min(1e-6))


def oriented_points(looks: Looks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points [N, 3] of the depths and their unit normals, outwards."""
    points, normals = [], []
    for view in range(len(looks)):
        depth, matrix, k = _depth(looks, view), looks.cameras.viewmats[view], looks.cameras.Ks[view]
        y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in depth.shape), indexing="ij")
        seen = torch.stack([(x - k[0, 2]) / k[0, 0] * depth, (y - k[1, 2]) / k[1, 1] * depth, depth], -1)
        right, down = seen[1:-1, 2:] - seen[1:-1, :-2], seen[2:, 1:-1] - seen[:-2, 1:-1]
        solid = torch.nn.functional.max_pool2d((depth <= 0).float()[None], 3, 1)[0] == 0
        # A step from one part to the next is no surface.
        jump = torch.maximum(right[..., 2].abs(), down[..., 2].abs()) > 8 * depth[1:-1, 1:-1] / k[0, 0]
        kept = solid & ~jump
        outwards = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)[kept]
        points.append((seen[1:-1, 1:-1][kept] - matrix[:3, 3]) @ matrix[:3, :3])
        normals.append(outwards @ matrix[:3, :3])
    every, directions = torch.cat(points), torch.cat(normals)
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:POINTS]
    return every[chosen].double().numpy(), directions[chosen].double().numpy()


def measured(kind: str, way: str, make: Callable[[], Surface], truth: NDArray[np.float32]) -> Row:
    """How good a surface is."""
    import trimesh
    from scipy.spatial import cKDTree

    before = time.process_time()
    surface = make()
    seconds = time.process_time() - before
    if not len(surface.faces):
        return Row(kind, way, 0, False, float("nan"), seconds)
    body = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    points = np.asarray(trimesh.sample.sample_surface(body, SAMPLES, seed=0)[0])
    size = float(np.ptp(truth, axis=0).max())
    there, back = cKDTree(truth).query(points)[0].mean(), cKDTree(points).query(truth)[0].mean()
    chamfer = float(there + back) / 2 / size
    return Row(kind, way, len(surface.faces), surface.watertight, chamfer, seconds)


def compare(file: Path, ways: Sequence[str]) -> list[Row]:
    """Ways by their names on one splat."""
    kind, splat = file.stem, load_gaussians(file)
    place = extent(splat)
    cameras = cameras_around(place, CONFIG.views, CONFIG.resolution)
    with torch.no_grad():
        looks = look_around(splat, place, cameras, "auto", lambda: None)
        given, truth = Given(splat, looks, grid_around(place, CONFIG.cells)), true_points(kind)
        rows: list[Row] = []

        def add(way: str, make: Callable[[], Surface]) -> None:
            rows.append(measured(kind, way, make, truth))
            print(asdict(rows[-1]), flush=True)

        for way in SURFACES:
            if way.__name__ in ways:
                add(way.__name__, partial(way, given))
        ours = fusion(given)
        for fewer in FEWER:
            if fewer.__name__ in ways:
                add(fewer.__name__, partial(fewer, ours))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.surfaces", description=__doc__)
    parser.add_argument("splats", nargs="+", type=Path, metavar="SPLAT", help="such as starter/work/meshes/mug.ply")
    names = [way.__name__ for way in (*SURFACES, *FEWER)]
    parser.add_argument("--ways", nargs="+", choices=names, default=names, metavar="WAY", help=", ".join(names))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[Any] = [asdict(row) for file in options.splats for row in compare(file, options.ways)]
    finish(rows, options.out)


if __name__ == "__main__":
    main()
