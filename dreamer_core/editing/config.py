"""The configuration of a run that changes a splat, from a preset and how much may change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from .stages import FULL_SPEED

Task = Literal["restyle", "edit"]
STEPS = 300
ANCHORED = ("silhouette", "depth", "colours", "patches")
ORDER = ("sizes_from", "positions_from", "position_rate")
"""Fields of `EditSettings`."""
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
        frozen = "strength 0" if self.edit.strength == 0 else f"change={self.edit.change}"
        if self.density.enabled and (self.edit.strength == 0 or self.edit.change != "all"):
            raise InputError("density.enabled", f"false with {frozen}: Gaussians must not come or go", True)
        if self.edit.change == "shape" and self.edit.position_rate == 0:
            raise InputError("edit.position_rate", "above 0 with change=shape, or nothing changes", 0)
        if self.edit.harmonics == "flatten" and self.edit.change == "shape":
            raise InputError("edit.harmonics", "keep with change=shape: colours stay as they are", "flatten")

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
    edit = changed(TASKS[task], own) if own else TASKS[task]
    base = changing(preset.change or preset.config, task, edit)
    whole = EditConfig(**{f.name: getattr(base, f.name) for f in fields(OptimizeConfig)}, edit=edit)
    return configured(whole, with_schedule(given))


def with_schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings; fewer steps than usual shorten a schedule that is not given, so that everything has its turn."""
    few = "steps" in given and given["steps"] < STEPS
    return {"schedule_steps": given["steps"], **given} if few else dict(given)


def unread_edit(edit: EditSettings, given: Iterable[str]) -> dict[str, str]:
    """Of the `given` settings, by dotted name, those of the edit that have no effect -> why."""
    why: dict[str, str] = {}
    if edit.strength == 0:
        why |= dict.fromkeys(("change", "harmonics", "focus", *ANCHORED, *ORDER), "edit.strength is 0")
    if edit.change == "colours":
        why |= dict.fromkeys(("silhouette", "depth", *ORDER), "edit.change is colours")
    if edit.change == "shape":
        why |= dict.fromkeys(("sizes_from", "positions_from"), "edit.change is shape")
    if edit.change != "colours" and edit.position_rate == 0:
        shape = ("silhouette", "depth", "sizes_from", "positions_from")
        why |= dict.fromkeys(shape, "edit.position_rate is 0, and the shape stays")
    if edit.change == "all" and edit.sizes_from >= 1:
        shape = ("silhouette", "depth", "positions_from", "position_rate")
        why |= dict.fromkeys(shape, "edit.sizes_from is 1, and the shape stays")
    if edit.colours == 0:
        why["patches"] = "edit.colours is 0"
    if edit.positions_from < edit.sizes_from:
        why["positions_from"] = "positions change after edit.sizes_from at the earliest"
    given = set(given)
    if "guidance.t_max" in given and edit.strength >= FULL_SPEED:
        why["strength"] = "guidance.t_max is given"
    return {f"edit.{name}": reason for name, reason in why.items() if f"edit.{name}" in given}
