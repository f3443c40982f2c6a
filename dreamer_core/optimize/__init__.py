"""The optimisation: configuration, state, loop."""

from ..guidance import GuidanceConfig
from .backgrounds import BackgroundConfig
from .checkpoint import load_state, save_state
from .cleanup import CleanupConfig, CleanupReport, clean
from .density_config import DensityConfig
from .learning_rates import LearningRates
from .loop import StepReport, optimize, train_step
from .presets import PRESETS, Preset
from .recipe import OptimizeConfig, Recipe
from .regularizers import RegularizerConfig
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
    "Preset",
    "Recipe",
    "RegularizerConfig",
    "StepReport",
    "clean",
    "load_state",
    "optimize",
    "save_state",
    "train_step",
]
