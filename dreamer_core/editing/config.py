"""The configuration of a run that changes a splat, from a preset and how much may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from ..errors import InputError
from ..guidance.sds import SDS
from ..optimize.density_config import DensityConfig
from ..optimize.presets import Preset, configured
from ..optimize.recipe import OptimizeConfig, Recipe
from ..optimize.regularizers import RegularizerConfig
from ..setting_values import changed
from .settings import EditSettings

Task = Literal["restyle", "edit"]
STEPS = 300
EDIT_CFG = 7.5
"""Guidance scale of the delta, as published for pictures."""


@dataclass(frozen=True)
class EditRecipe(Recipe):
    """What decides the state of such a run at a step, besides splat, region, prompts and teacher."""

    edit: EditSettings = field(default_factory=EditSettings)


@dataclass(frozen=True)
class EditConfig(OptimizeConfig):
    """An optimisation that changes a splat."""

    edit: EditSettings = field(default_factory=EditSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cleanup.enabled:
            raise InputError("cleanup.enabled", "false: what is not edited must stay", True, "clean up afterwards")

    @property
    def recipe(self) -> EditRecipe:
        return EditRecipe(**{f.name: getattr(self, f.name) for f in fields(EditRecipe)})


TASKS: dict[Task, EditSettings] = {"restyle": EditSettings(), "edit": EditSettings()}
Config = TypeVar("Config", bound=OptimizeConfig)


def changing(config: Config, task: Task, edit: EditSettings) -> Config:
    """`config` as a run that changes a splat has it: no start from noise, no growth, nothing that shrinks or smooths.

    t is drawn from t_min to the strength's share of all timesteps, where image to image with that denoise begins.
    """
    high = edit.t_max
    guidance = replace(
        config.guidance, t_min=min(config.guidance.t_min, high), t_max=high, t_widening=0, t_lift=0, warmup_steps=0
    )
    if task == "edit":
        guidance = replace(guidance, method=SDS(cfg=EDIT_CFG))
    return replace(
        config,
        steps=STEPS,
        schedule_steps=STEPS,
        guidance=guidance,
        depth_share=0.0,
        scale_noise=0.0,
        cameras=replace(config.cameras, progress_every=0),
        density=replace(config.density, enabled=False) if config.density.enabled else DensityConfig(enabled=False),
        regularizers=RegularizerConfig(tv_rgb=0.0, tv_disparity=0.0, scale=0.0),
        cleanup=replace(config.cleanup, enabled=False),
    )


def edit_config(preset: Preset, task: Task, given: Mapping[str, Any] | None = None) -> EditConfig:
    """The preset as a run that changes a splat, then all `given` settings by dotted name. Errors: InputError."""
    given = dict(given or {})
    own = {name.removeprefix("edit."): value for name, value in given.items() if name.startswith("edit.")}
    edit = changed(TASKS[task], own, "edit") if own else TASKS[task]
    base = changing(preset.change or preset.config, task, edit)
    whole = EditConfig(**{f.name: getattr(base, f.name) for f in fields(OptimizeConfig)}, edit=edit)
    return configured(whole, given)
