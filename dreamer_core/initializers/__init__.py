"""Where the Gaussians start."""

from .placement import UPS, fitted, oriented, subset, upright
from .point_cloud import FITTED_SIZE, PointCloud, gaussians_from_cloud
from .shapes import SHAPES, from_points, initial_shape
from .start_files import START_FILES, gaussians_from_file

__all__ = [
    "FITTED_SIZE",
    "SHAPES",
    "START_FILES",
    "UPS",
    "PointCloud",
    "fitted",
    "from_points",
    "gaussians_from_cloud",
    "gaussians_from_file",
    "initial_shape",
    "oriented",
    "subset",
    "upright",
]
