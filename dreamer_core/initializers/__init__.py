"""Where the Gaussians start."""

from .shapes import SHAPES, from_points, initial_shape

__all__ = ["SHAPES", "from_points", "initial_shape"]
