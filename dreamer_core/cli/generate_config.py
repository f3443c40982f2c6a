"""The settings of `generate`: a preset, what the options say otherwise, and the prompt."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from ..editing.config import EditConfig, Task, edit_config, unread_edit, with_schedule
from ..editing.settings import EditSettings
from ..errors import InputError
from ..optimize import PRESETS, OptimizeConfig, Preset
from ..optimize.presets import STARTER_SIDES, configured, unread
from ..prompts import PromptConfig, unread_words
from ..setting_values import parsed
from ..settings import Choice, Setting, declared_settings

STRENGTH = "edit.strength"


@dataclass(frozen=True)
class GenerateConfig(OptimizeConfig):
    """Every setting of `generate` that has a name: the optimisation's as they are, the prompt's as `prompt.*`."""

    prompt: PromptConfig = field(default_factory=PromptConfig)

    @staticmethod
    def of(config: OptimizeConfig, prompt: PromptConfig) -> GenerateConfig:
        """Both in one."""
        return GenerateConfig(**{f.name: getattr(config, f.name) for f in fields(OptimizeConfig)}, prompt=prompt)

    @property
    def optimization(self) -> OptimizeConfig:
        """The part that the optimiser knows."""
        return OptimizeConfig(**{f.name: getattr(self, f.name) for f in fields(OptimizeConfig)})


@dataclass(frozen=True)
class ChangeConfig(GenerateConfig):
    """What is written on the command line of a run that changes a splat."""

    edit: EditSettings = field(default_factory=EditSettings)

    @staticmethod
    def of_edit(config: EditConfig, prompt: PromptConfig) -> ChangeConfig:
        """Both in one."""
        return ChangeConfig(**{f.name: getattr(config, f.name) for f in fields(EditConfig)}, prompt=prompt)

    @property
    def optimization(self) -> EditConfig:
        return EditConfig(**{f.name: getattr(self, f.name) for f in fields(EditConfig)})


def flagged(kind: type[GenerateConfig] = GenerateConfig) -> Iterator[Setting]:
    """The settings that have an option of their own, each option once."""
    seen: set[str] = set()
    for setting in declared_settings(kind):
        if setting.knob.flag and setting.field not in seen:
            seen.add(setting.field)
            yield setting


def option(setting: Setting) -> str:
    """Its option: `--perp-neg` for prompt.perp_neg."""
    return f"--{setting.field.replace('_', '-')}"


def add_setting_options(parser: argparse.ArgumentParser, kind: type[GenerateConfig] = GenerateConfig) -> None:
    """One option for every flagged setting, and --set for all."""
    for setting in flagged(kind):
        tip = setting.knob.tip.replace("%", "%%")
        if isinstance(setting.knob, Choice):
            tip += f" {'; '.join(f'{v.name}: {v.summary()}' for v in setting.knob.of)}"
        if setting.kind is bool:
            parser.add_argument(option(setting), action="store_true", default=None, help=tip)
        elif setting.options:
            parser.add_argument(option(setting), choices=setting.options, help=tip)
        else:
            parser.add_argument(option(setting), type=setting.number or str, help=tip)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the preset or the prompt (prompt.side=profile); see --show",
    )


def build_config(args: argparse.Namespace, preset: Preset, task: Task | None = None) -> GenerateConfig:
    """The preset with the options that were given, --set last; with a task, as a run that changes a splat has it.

    Errors: InputError that names the option.
    """
    flags = _flags(args)
    given = {name: getattr(args, setting.field) for name, setting in flags.items()}
    if args.clip == "off":
        given["clip.mode"] = "off"
    elif args.clip is not None:
        given["clip.threshold"] = _threshold(args.clip)
    prompt = PromptConfig(negative=preset.negative)
    everything = _base(preset, prompt, task, args)
    assigned = parsed(everything, _assignments(args.set))
    if args.model is None or preset is PRESETS["starter"]:
        own_side = assigned.get("prompt.side", prompt.side) != prompt.side  # for both sides, then
        words = {k: v for k, v in STARTER_SIDES.items() if not (own_side and k in ("left", "right"))}
        everything = replace(everything, prompt=replace(prompt, **words))
    other = assigned.get("prompt.prompt", args.prompt)
    if other != args.prompt:  # which names the folder, and is what Shap-E is asked for
        raise InputError("--set prompt.prompt", f"the same as PROMPT, {args.prompt!r}", repr(other), "write it once")
    try:
        said = {"prompt.prompt": args.prompt, **given, **assigned}
        made = configured(everything, said if task is None else with_schedule(said), args.cameras)
        _check_read(made, everything, {**given, **assigned})
        return made
    except InputError as error:
        name = "prompt.prompt" if error.field == "prompt" else error.field
        if task is not None and name == "schedule_steps" and name not in assigned:
            name = "steps"  # which it follows
        if name in assigned or name not in (*given, "prompt.prompt"):
            shown = f"--set {name}"
        else:
            shown = {"clip.threshold": "--clip", "prompt.prompt": "prompt"}.get(name) or option(flags[name])
        raise InputError(shown, error.expected, error.got, error.remedy) from error


def _flags(args: argparse.Namespace) -> dict[str, Setting]:
    """The settings whose options were given, by name."""
    return {s.name: s for s in flagged(ChangeConfig) if getattr(args, s.field, None) is not None}


def _base(preset: Preset, prompt: PromptConfig, task: Task | None, args: argparse.Namespace) -> GenerateConfig:
    """What the options change. The strength comes first: timesteps follow from it, which options may say otherwise."""
    if task is None:
        return GenerateConfig.of(preset.config, prompt)
    standard = ChangeConfig.of_edit(edit_config(preset, task), prompt)
    given = {n: v for n, v in parsed(standard, _assignments(args.set)).items() if n == STRENGTH}
    if args.strength is not None:
        given.setdefault(STRENGTH, args.strength)
    try:
        return ChangeConfig.of_edit(edit_config(preset, task, given), prompt)
    except InputError as error:
        option = "--strength" if args.strength is not None else f"--set {error.field}"
        raise InputError(option, error.expected, error.got, error.remedy) from error


def given_settings(args: argparse.Namespace) -> set[str]:
    """Names of the settings that options, or --set, say."""
    return {*_flags(args), *_assignments(args.set)}


def _check_read(made: GenerateConfig, base: GenerateConfig, given: Iterable[str]) -> None:
    """Errors: InputError for a setting that would do nothing."""
    method = made.guidance.method
    for name in given:
        if name in (f"guidance.{field}" for field in method.ignores):
            raise InputError(name, f"a setting that {method.name} reads", "one that it does not", "leave it out")
    given = set(given)
    found = unread(made, base, given)
    if isinstance(made, ChangeConfig):
        found |= unread_edit(made.edit, given)
    words = unread_words(made.prompt, method, bool(made.prompt.artefacts))
    if not made.prompt.overhead:
        words |= dict.fromkeys(("prompt.overhead_from", "prompt.overhead_to"), "prompt.overhead is empty")
    found |= {name: why for name, why in words.items() if name in given}
    if made.prompt.side != base.prompt.side and made.prompt.left and made.prompt.right:
        found["prompt.side"] = "both prompt.left and prompt.right are set"
    for name, why in found.items():
        raise InputError(name, "a setting that has an effect", f"one that has none: {why}", "leave it out")


def _assignments(texts: Sequence[str]) -> dict[str, str]:
    """Name and text of every NAME=VALUE; the last one of a name counts."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise InputError("--set", "NAME=VALUE", text)
        found[name] = value
    return found


def _threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError("--clip", "a number above 0, or off", text) from error
