"""Declared settings as widgets, and what people touched of them.

A widget that nobody touched holds one value that no setting can have (a number below its bounds, or the word "preset"),
so that whatever preset the optimiser runs with stays as it is. Any other value is a setting's, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from comfy_api.latest import io

from ..dreamer_core.errors import InputError
from ..dreamer_core.optimize import PRESETS, OptimizeConfig
from ..dreamer_core.optimize.presets import configured
from ..dreamer_core.orbit import SET_BY_ANGLES
from ..dreamer_core.setting_values import changed, values
from ..dreamer_core.settings import Setting, Settings, declared_settings, own_settings
from .sockets import CHOOSE

PRESET = "preset"
ON, OFF = "on", "off"
LEFT_ALONE = "What stays at preset, or at a number below its range (-1 in most places), is left to the preset."
"""What the description of a settings node ends with."""
ANGLES = "angles"
"""Among overrides: the name of a camera preset, which is no setting."""
LOWEST = "lowest"
"""In /object_info: the lowest value that means something, where an untouched widget lies below it."""
Config = TypeVar("Config", bound=OptimizeConfig)
Overrides = Mapping[str, Any]
"""Values by the dotted names of their settings: what a settings node hands to the optimiser."""


def settings_of(group: str) -> tuple[Setting, ...]:
    """The settings of a group that widgets offer, in the order of their declaration; "" is the top level."""
    found = declared_settings(OptimizeConfig)
    return tuple(s for s in found if s.path == group and not s.variant and not s.knob.secret)


def variant_settings(choice: type[Settings]) -> tuple[Setting, ...]:
    """Those that one variant of a choice has of its own."""
    return tuple(s for s in own_settings(choice) if not s.knob.secret)


def ends(setting: Setting) -> tuple[str, ...]:
    """The inputs of a setting: itself, or both values of a pair."""
    return tuple(f"{setting.field}_{end}" for end in setting.knob.ends) if setting.is_pair else (setting.field,)


def untouched(setting: Setting) -> Any:
    """The value of a widget that leaves the preset's."""
    if setting.knob.unset is not None:
        return setting.knob.unset
    low = setting.knob.low
    if setting.number is None or low is None:
        return PRESET
    return setting.number(-1 if low >= 0 else low - 1)


def is_touched(setting: Setting, value: Any) -> bool:
    """Whether a widget's value means anything. "preset" never does: it stands for an input that is left out."""
    return value is not None and value not in (PRESET, untouched(setting))


@cache
def _by_preset(choice: str = "", variant: str = "") -> dict[str, dict[str, Any]]:
    """The settings of every preset by name; where a choice is named, with this variant chosen."""
    given = {choice: variant} if choice else {}
    return {name: dict(values(changed(preset.config, given))) for name, preset in PRESETS.items()}


def preset_values(name: str, end: int | None = None, choice: str = "", variant: str = "") -> str:
    """What the presets say of a setting, for its tooltip; by their names where they differ."""
    found: dict[str, list[str]] = {}
    for preset, made in _by_preset(choice, variant).items():
        value = made[name]
        found.setdefault(shown(value if end is None else value[end]), []).append(preset)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(presets)}: {value}" for value, presets in found.items())


def shown(value: Any) -> str:
    """A value as people write it."""
    if value is None:
        return "the method's own"
    if isinstance(value, bool):
        return ON if value else OFF
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return f"{float(text):,.12f}".rstrip("0").rstrip(".") if "e" in text else text


def preset_widgets(settings: Iterable[Setting], note: Callable[[Setting], str] = lambda _: "") -> list[io.Input]:
    """Optional widgets that leave the preset's value until they are touched; `note` adds to the tips."""
    return [
        _preset_widget(s, end, f"the preset's ({preset_values(s.name, end if s.is_pair else None)})", note(s))
        for s in settings
        for end in range(len(ends(s)))
    ]


def variant_widgets(choice: Setting, variant: type[Settings]) -> list[io.Input]:
    """The same for the settings of one variant of a choice; where no preset has it, they leave its own values."""
    whose = "the preset's" if any(v[choice.name] == variant.name for v in _by_preset().values()) else "the method's own"
    made = []
    for s in variant_settings(variant):
        for end in range(len(ends(s))):
            full, which = f"{choice.path}.{s.field}", end if s.is_pair else None
            which_values = preset_values(full, which, choice.name, variant.name)
            made.append(_preset_widget(s, end, f"{whose} ({which_values})"))
    return made


def _preset_widget(setting: Setting, end: int, left: str, note: str = "") -> io.Input:
    """One widget; `left` says what an untouched one leaves."""
    nothing = untouched(setting)
    tip = setting.knob.second_tip if end else setting.knob.tip
    words = (tip, note, f"{shown(nothing)}: {left}.")
    return _widget(setting, ends(setting)[end], nothing, " ".join(word for word in words if word))


def seed_widget(tip: str, optional: bool = True) -> io.Input:
    """A seed that the editor can change after every run."""
    return io.Int.Input(
        "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, optional=optional, tooltip=tip
    )


def plain_widgets(settings: Iterable[Setting]) -> list[io.Input]:
    """Optional widgets that begin with the declared defaults."""
    return [
        _widget(s, id, s.default[end] if s.is_pair else s.default, s.knob.second_tip if end else s.knob.tip)
        for s in settings
        for end, id in enumerate(ends(s))
    ]


def _widget(setting: Setting, id: str, default: Any, tip: str) -> io.Input:
    knob = setting.knob
    common: dict[str, Any] = {"optional": True, "advanced": knob.advanced, "tooltip": tip}
    if knob.label:
        common["display_name"] = knob.label
    if setting.number is not None:
        assert knob.low is not None
        bounds = {"default": default, "min": min(knob.low, default), "max": knob.high, "step": knob.step}
        if default < knob.low:
            common["extra_dict"] = {LOWEST: knob.low}
        return (io.Int if setting.number is int else io.Float).Input(id, **bounds, **common)
    if setting.kind is str:
        lines: dict[str, Any] = {"multiline": True, "dynamic_prompts": True} if knob.multiline else {}
        return io.String.Input(id, default=default, **lines, **common)
    if isinstance(default, bool):
        return io.Boolean.Input(id, default=default, **common)
    options = [ON, OFF] if setting.kind is bool else list(setting.options)
    return io.Combo.Input(id, options=options if default in options else [default, *options], default=default, **common)


def overrides(settings: Iterable[Setting], given: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values that people touched, by dotted names. Unknown inputs are left alone. Errors: InputError for a number
    out of bounds, under the name of its input.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        group = f"{path}." if path else setting.name.removesuffix(setting.field)
        for id in ends(setting):
            if id in given and is_touched(setting, given[id]):
                found[f"{group}{id}"] = _meant(setting, id, given[id])
    return found


def _meant(setting: Setting, id: str, value: Any) -> Any:
    """A widget's value as the setting's; graphs of earlier versions hold true and false, links bring what they like."""
    if setting.kind is bool and not isinstance(value, bool):
        return {ON: True, OFF: False}.get(value, value)
    if setting.number is None:
        return value
    low, high = setting.knob.low, setting.knob.high
    assert low is not None
    assert high is not None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or value != setting.number(value):
        expected = replace(setting, kind=setting.number).expected()
        raise InputError(id, f"{expected}, or {shown(untouched(setting))} for the preset's", value)
    return setting.number(value)


def applied(config: Config, *given: Overrides | None) -> Config:
    """`config` with what was touched alone; chosen angles replace elevation and azimuth. Errors: InputError."""
    touched = {name: value for one in given if one is not None for name, value in one.items()}
    angles = touched.pop(ANGLES, None)
    if angles is not None:
        replaced = tuple(f"cameras.{field}" for field in SET_BY_ANGLES)
        touched = {name: value for name, value in touched.items() if not name.startswith(replaced)}
    return configured(config, touched, angles)


def on_preset(name: str, *given: Overrides | None) -> OptimizeConfig:
    """The preset with what was touched, and that alone. Errors: InputError with the values concerned and the preset."""
    try:
        return applied(PRESETS[name].config, *given)
    except InputError as error:
        raise _explained(error, given, f"the rest is the preset {name}'s") from error


def usable(given: Overrides) -> Overrides:
    """`given`, unless no preset can take it. Errors: InputError with the values concerned."""
    refused: list[InputError] = []
    for preset in PRESETS.values():
        try:
            applied(preset.config, given)
        except InputError as error:
            refused.append(error)
    if len(refused) == len(PRESETS):
        raise _explained(refused[0], [given], f"on the preset {next(iter(PRESETS))}, and on all others")
    return given


def _explained(error: InputError, given: Iterable[Overrides | None], where: str) -> InputError:
    """The error with what to change, the touched values that it speaks of, and where they were applied."""
    if error.remedy:
        return error
    named = set(re.findall(r"\w+", f"{error.field} {error.expected}"))
    pairs = {id: s.field for s in declared_settings(OptimizeConfig) if s.is_pair for id in ends(s)}
    touched = {name.rpartition(".")[2]: value for one in given if one is not None for name, value in one.items()}
    words = [f"{id} ({shown(value)})" for id, value in touched.items() if {id, pairs.get(id)} & named]
    remedy = f"change {' or '.join(words)}; {where}" if words else where
    return InputError(error.field, error.expected, error.got, remedy)


def refusal(settings: Iterable[Setting], given: Mapping[str, Any]) -> bool | str:
    """What a `validate_inputs` returns of widgets whose values must go together; linked ones are None."""
    try:
        touched = overrides(settings, given)
        if not any(value is None for value in given.values()):
            usable(touched)
    except InputError as error:
        return str(error)
    return True


def plain_values(settings: Iterable[Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields and values of a dataclass from plain widgets; what is not given keeps its default."""
    found: dict[str, Any] = {}
    for setting in settings:
        ids = ends(setting)
        if setting.is_pair:
            pair = tuple(d if given.get(i) is None else given[i] for i, d in zip(ids, setting.default))
            found[setting.field] = pair
        elif given.get(setting.field) is not None:
            found[setting.field] = given[setting.field]
    return found


def ordered(settings: Iterable[Setting], names: Iterable[str]) -> list[Setting]:
    """Settings in the order that saved graphs know, then those that came later in the order of their declaration."""
    left = {s.name: s for s in settings}
    return [left.pop(name) for name in names] + list(left.values())


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> str:
    """What is wrong with a word that ComfyUI leaves to a node's own check, or nothing; a linked one is None."""
    options = list(allowed)
    if value is None or value in options:
        return ""
    return str(InputError(name, f"one of {', '.join(map(str, options))}", repr(value), CHOOSE))
