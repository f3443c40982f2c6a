"""A file of any readable kind as the Gaussians to start from."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..formats import READABLE, load_gaussians, splat_format
from ..gaussians import Gaussians
from ..optimize.randomness import step_generator
from .model_files import MODEL_UP, MODELS, read_points
from .placement import fitted, oriented, subset, upright
from .point_cloud import FITTED_SIZE, gaussians_from_cloud
from .shapes import check_numbers

START_FILES = tuple(dict.fromkeys([*READABLE, *MODELS]))
"""Lower-case suffixes of all files that an optimisation can start from: splats, point clouds and meshes."""


def is_splat(path: Path) -> bool:
    """Whether a file holds Gaussians rather than points or a mesh: by its suffix, a .ply by its attributes."""
    try:
        return splat_format(path) is not None
    except OSError:
        return False


def gaussians_from_file(
    path: Path,
    *,
    seed: int = 0,
    count: int | None = None,
    points: int = 40_000,
    size: float | None = None,
    opacity: float = 0.1,
    up: str = "auto",
    yaw: float = 0.0,
    field: str = "FILE",
) -> Gaussians:
    """The Gaussians of a splat file, or new ones on the points or surfaces of any other; upright, front on +Z.

    A splat keeps its Gaussians (at most `count` of them), and its place and size unless `size` is given. Points and
    meshes give `count` (None: `points`) Gaussians of this `opacity`, in a ball of `size` (None: 0.8). `up` names the
    axis of the file that points up, `yaw` the azimuth in degrees of the side that becomes the front.
    Errors: InputError for unusable files and values; `field` names the file's option in them.
    """
    suffix = path.suffix.lower()
    if suffix not in START_FILES:
        raise InputError(field, f"a file of {', '.join(START_FILES)}", path)
    if path.is_dir() or not path.is_file():
        raise InputError(field, "a file", f"{path}, which {'is a folder' if path.is_dir() else 'does not exist'}")
    check_numbers(count=points if count is None else count, size=FITTED_SIZE if size is None else size, opacity=opacity)
    if is_splat(path):
        gaussians = oriented(load_gaussians(path, field), up, yaw)
        if count is not None:
            gaussians = subset(gaussians, count, step_generator(seed, 0, "subset"))
        return gaussians if size is None else fitted(gaussians, size)
    rotation = upright(MODEL_UP[suffix] if up == "auto" else up, yaw)
    generator = step_generator(seed, 0, "init")
    wanted = points if count is None else count
    cloud = read_points(path, wanted, generator, field).turned(rotation)
    return gaussians_from_cloud(
        cloud, wanted, generator, size=FITTED_SIZE if size is None else size, opacity=opacity, field=field
    )
