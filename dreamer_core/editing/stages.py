"""The order in which the parameters of a splat change: colours, then sizes and opacities, then positions."""

from __future__ import annotations

from .settings import EditSettings

COLOURS = ("sh0", "shN")
SIZES = ("scales", "opacities", "quats")
POSITIONS = ("means",)
"""Groups of parameters by gsplat's names."""
FULL_SPEED = 0.3
"""Strength from which rates are whole. Adam's steps do not shrink with the gradient, so at low noise, where the teacher
has little to say, whole steps would change more than at higher noise."""


def rate_factors(settings: EditSettings, progress: float) -> dict[str, float]:
    """Factors of the learning rates by gsplat's names at `progress` in [0, 1] of the schedule; 0: frozen.

    Where the shape alone may change, it does from the beginning. Below a strength of `FULL_SPEED` all are smaller in
    proportion, so that with strength 0 nothing changes.
    """
    speed = min(settings.strength / FULL_SPEED, 1.0)
    shape_alone = settings.change == "shape"
    frozen_shape = settings.change == "colours"
    sizes = not frozen_shape and (shape_alone or progress >= settings.sizes_from)
    positions = not frozen_shape and (shape_alone or progress >= max(settings.sizes_from, settings.positions_from))
    factors = dict.fromkeys(COLOURS, 0.0 if shape_alone else speed)
    if settings.harmonics == "flatten":
        factors["shN"] = 0.0
    factors |= dict.fromkeys(SIZES, speed * settings.position_rate if sizes else 0.0)
    factors |= dict.fromkeys(POSITIONS, speed * settings.position_rate if positions else 0.0)
    return factors
