"""The optimisation: configuration, state, loop."""

from .checkpoint import load_state, save_state
from .cleanup import CleanupConfig, CleanupReport, clean
from .config import (
    BackgroundConfig,
    DensityConfig,
    GuidanceConfig,
    LearningRates,
    OptimizeConfig,
    RegularizerConfig,
)
from .loop import StepReport, optimize, train_step
from .presets import PRESETS
from .state import OptimizationState

__all__ = [
    "PRESETS",
    "BackgroundConfig",
    "CleanupConfig",
    "CleanupReport",
    "DensityConfig",
    "GuidanceConfig",
    "LearningRates",
    "OptimizationState",
    "OptimizeConfig",
    "RegularizerConfig",
    "StepReport",
    "clean",
    "load_state",
    "optimize",
    "save_state",
    "train_step",
]
