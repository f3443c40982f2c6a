"""What is declared of every setting, and what follows: checks, names, changes, texts."""

import math
import typing
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import pytest

from dreamer_core.cli.generate_config import GenerateConfig
from dreamer_core.errors import InputError
from dreamer_core.guidance import Method
from dreamer_core.guidance.csd import CSD
from dreamer_core.guidance.sds import SDS
from dreamer_core.guidance.tsm import TSM
from dreamer_core.optimize import PRESETS, OptimizeConfig
from dreamer_core.setting_values import changed, nested, parse_value, parsed, show, values
from dreamer_core.settings import Choice, Knob, Settings, declared_settings, own_settings

DECLARED = declared_settings(GenerateConfig)
IDS = [f"{s.name}{f' ({s.variant})' if s.variant else ''}" for s in DECLARED]


NAMES = {option for s in DECLARED for option in s.options}
"""What a tip may begin with in lower case: the word of a choice, or a setting."""
NAMES |= {f"{s.field}_{end}" if s.is_pair else s.field for s in DECLARED for end in s.knob.ends}


def holder(setting):
    """The dataclass that declares it, made with its defaults, in a whole configuration."""
    config = GenerateConfig()
    if setting.variant:
        config = changed(config, {"guidance.method": setting.variant})
    return config


@pytest.mark.parametrize("setting", DECLARED, ids=IDS)
def test_every_setting_says_what_it_is(setting):
    tips = [setting.knob.tip, setting.knob.second_tip] if setting.knob.second_tip else [setting.knob.tip]
    for tip in tips:
        assert 20 <= len(tip) <= 220, tip
        assert tip[0].isupper() or tip.replace(":", " ").split()[0] in NAMES, tip
        assert tip.endswith("."), tip


@pytest.mark.parametrize("setting", [s for s in DECLARED if s.number], ids=lambda s: s.name)
def test_every_number_has_bounds_that_hold(setting):
    low, high, step = setting.knob.low, setting.knob.high, setting.knob.step
    assert low is not None
    assert high is not None
    assert low < high
    assert step is not None
    assert step > 0
    defaults = setting.default if setting.is_pair else (setting.default,)
    assert all(low <= v <= high for v in defaults if v is not None)
    below = low - 1 if setting.number is int else math.nextafter(low, -math.inf)
    above = high + 1 if setting.number is int else math.nextafter(high, math.inf)
    for outside in (below, above, math.nan, math.inf):
        given = (outside, outside) if setting.is_pair else outside
        with pytest.raises(InputError) as error:
            changed(holder(setting), {setting.name: given})
        assert error.value.field == setting.name
        assert error.value.expected == setting.expected()


@pytest.mark.parametrize("setting", [s for s in DECLARED if s.options], ids=lambda s: s.name)
def test_every_word_is_one_of_its_options(setting):
    assert setting.default in setting.options or isinstance(setting.knob, Choice)
    with pytest.raises(InputError, match=f"^{setting.name}: expected one of {', '.join(setting.options)}, got what$"):
        changed(GenerateConfig(), {setting.name: "what"})


@pytest.mark.parametrize("setting", DECLARED, ids=IDS)
def test_every_setting_survives_its_text(setting):
    """What --show prints, --set takes."""
    config = holder(setting)
    lines = dict(line.split("=", 1) for line in show(config).splitlines())
    assert parsed(config, {setting.name: lines[setting.name]}) == {setting.name: dict(values(config))[setting.name]}


def test_every_field_of_every_group_is_a_setting_or_a_group():
    """A field without a declaration would be missing everywhere."""

    def fields_of(cls, path=""):
        for name, hint in typing.get_type_hints(cls).items():
            if typing.get_origin(hint) is ClassVar:
                continue
            if isinstance(hint, type) and issubclass(hint, Settings) and hint is not Method:
                yield from fields_of(hint, f"{path}{name}.")
            else:
                yield path + name

    assert {s.name for s in DECLARED if not s.variant} == set(fields_of(GenerateConfig))


def test_names_are_unique_but_for_what_methods_share():
    names = [(s.name, s.variant) for s in DECLARED]
    assert len(set(names)) == len(names)
    common = {s.name for s in DECLARED if not s.variant}
    assert not common & {s.name for s in DECLARED if s.variant}
    shared = [s for s in DECLARED if s.name == "guidance.cfg"]
    assert len({(s.kind, s.knob) for s in shared}) == 1  # one declaration, so that one option fits all


# Changes.


def test_what_is_touched_changes_alone():
    for preset in PRESETS.values():
        assert changed(preset.config, {}) == preset.config
        before, after = dict(values(preset.config)), dict(values(changed(preset.config, {"clip.depth_factor": 0.5})))
        assert {name for name in before if before[name] != after[name]} == {"clip.depth_factor"}


def test_a_method_made_anew_brings_its_defaults_and_a_chosen_one_keeps_its_values():
    paper = PRESETS["paper"].config
    assert changed(paper, {"guidance.method": "sds"}).guidance.method == SDS()
    assert changed(paper, {"guidance.method": "tsm"}).guidance.method == TSM(gamma=0.3)
    assert changed(paper, {"guidance.method": "sds", "guidance.cfg": 30.0}).guidance.method == SDS(cfg=30.0)
    assert changed(paper, {"guidance.cfg": 30.0, "guidance.method": "sds"}).guidance.method == SDS(cfg=30.0)
    assert changed(paper, {"guidance.cfg": 30.0}).guidance.method == TSM(gamma=0.3, cfg=30.0)
    assert changed(paper, {"guidance.method": "sds"}).guidance.t_max == paper.guidance.t_max


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"guidance.method": "sds", "guidance.gamma": 0.3},
            "guidance.gamma: expected a setting of sds, got one of tsm",
        ),
        ({"guidance.csd_empty": 0.2}, "guidance.csd_empty: expected a setting of tsm, got one of csd"),
        (
            {"guidance.sdi_steps": 5, "clip.mode": "off"},
            "guidance.sdi_steps: expected a setting of tsm, got one of sdi",
        ),
        (
            {"guidance.method": "csd", "guidance.cfg": 2.0},
            "guidance.cfg: expected a setting of csd, got one of asd, ism,",
        ),
    ],
)
def test_a_setting_of_another_method_is_refused_by_name(given, message):
    with pytest.raises(InputError, match=r"leave it out, or set guidance\.method to one of these$") as error:
        changed(OptimizeConfig(), given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("guidance.gama", "guidance.gamma"),
        ("gamma", "guidance.gamma"),
        ("tv_rgb", "regularizers.tv_rgb"),
        ("cameras.radius_mni", "cameras.radius"),
        ("clip.treshold", "clip.threshold"),
        ("viewz", "views"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    for attempt in (lambda: changed(OptimizeConfig(), {name: 1}), lambda: parsed(OptimizeConfig(), {name: "1"})):
        with pytest.raises(InputError, match=f"expected the name of a setting, got {name}; did you mean ") as error:
            attempt()
        assert near in error.value.remedy.replace("?", "").split()
    with pytest.raises(InputError, match="generate --show prints all names"):
        changed(OptimizeConfig(), {"qqqqqqqqqq": 1})


def test_one_end_of_two_can_be_given():
    config = changed(OptimizeConfig(), {"cameras.radius_min": 3.0})
    assert config.cameras.radius == (3.0, 5.5)
    assert changed(config, {"cameras.radius_max": 4.0}).cameras.radius == (3.0, 4.0)
    both = changed(OptimizeConfig(), {"cameras.radius_min": 7.0, "cameras.radius_max": 8.0})  # checked together
    assert both.cameras.radius == (7.0, 8.0)
    rates = changed(OptimizeConfig(), {"learning_rates.means_last": 0.5})  # may rise
    assert rates.learning_rates.means == (5.6e-4, 0.5)
    assert changed(OptimizeConfig(), {"cameras.radius": (1.0, 2.0), "cameras.radius_max": 3.0}).cameras.radius == (1, 3)
    assert parsed(OptimizeConfig(), {"cameras.radius_min": "3"}) == {"cameras.radius_min": 3.0}
    with pytest.raises(InputError, match=r"cameras\.radius: expected the lower value first"):
        changed(OptimizeConfig(), {"cameras.radius_min": 6.0})
    with pytest.raises(InputError, match=r"name of a setting, got cameras\.radius_first"):
        changed(OptimizeConfig(), {"cameras.radius_first": 6.0})


def test_values_that_go_together_are_checked_together():
    found = changed(OptimizeConfig(), {"guidance.t_min": 600, "guidance.t_max": 700, "guidance.delta": 100})
    assert (found.guidance.t_min, found.guidance.t_max) == (600, 700)
    with pytest.raises(InputError, match=r"^--set guidance\.t_min: expected at most t_max, 500, got 600$"):
        changed(OptimizeConfig(), {"guidance.t_min": 600}, "--set")


def test_nested_values_hold_the_choice_by_name():
    tree = nested(changed(OptimizeConfig(), {"guidance.method": "csd"}))
    assert (tree["guidance"]["method"], tree["guidance"]["csd_empty"]) == ("csd", 0.5)
    assert "gamma" not in tree["guidance"]
    assert tree["cameras"]["radius"] == (5.2, 5.5)
    assert nested(CSD()) == {"csd_empty": 0.5}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("1e-3", float, 0.001),
        ("Yes", bool, True),
        ("off", bool, False),
        ("none", float | None, None),
        ("0.5", float | None, 0.5),
        ("(1, 2)", tuple[float, float], (1.0, 2.0)),
        ("a, b = c", str, "a, b = c"),
    ],
)
def test_texts(text, kind, value):
    assert parse_value(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [("3.5", int, "a whole number"), ("maybe", bool, "true or false"), ("1", tuple[float, float], "2 numbers")],
)
def test_unusable_texts(text, kind, expected):
    with pytest.raises(ValueError, match=expected):
        parse_value(text, kind)


# A configuration of its own.


@dataclass(frozen=True)
class Round(Settings):
    """A ball. It rolls."""

    group = "shape"
    name = "round"
    size: Annotated[float, Knob("Radius in metres. 1 to 2.", 0.0, 2.0, 0.1)] = 1.0


@dataclass(frozen=True)
class Flat(Settings):
    """A disc."""

    group = "shape"
    name = "flat"
    sides: Annotated[int, Knob("Corners. 3 to 8.", 3, 8, 1)] = 4


@dataclass(frozen=True)
class Shape(Settings):
    group: ClassVar[str] = "shape"
    kind: Annotated[Settings, Choice("Which shape.", of=(Round, Flat))] = field(default_factory=Round)


@dataclass(frozen=True)
class Whole(Settings):
    shape: Shape = field(default_factory=Shape)
    count: Annotated[int, Knob("How many. 1 to 9.", 1, 9, 1)] = 1


def test_a_choice_has_the_settings_of_its_variants():
    assert [(s.name, s.variant) for s in declared_settings(Whole)] == [
        ("shape.kind", ""), ("shape.size", "round"), ("shape.sides", "flat"), ("count", ""),
    ]  # fmt: skip
    assert [s.name for s in own_settings(Whole)] == ["count"]
    assert dict(values(changed(Whole(), {"shape.kind": "flat", "shape.sides": 6}))) == {
        "shape.kind": "flat", "shape.sides": 6, "count": 1,
    }  # fmt: skip
    assert Round.summary() == "A ball"
    with pytest.raises(InputError, match=r"^shape.sides: expected a whole number from 3 to 8, got 9$"):
        Flat(sides=9)
    with pytest.raises(InputError, match=r"^shape.kind: expected one of round, flat, got cube$"):
        changed(Whole(), {"shape.kind": "cube"})
    with pytest.raises(InputError, match=r"^shape.kind: expected an object of Round, Flat, got 'round'$"):
        replace(Shape(), kind="round")


@pytest.mark.parametrize("bad", [2.5, True, "3", None, (1, 2)])
def test_a_whole_number_is_one(bad):
    with pytest.raises(InputError, match=r"^count: expected a whole number from 1 to 9, got"):
        Whole(count=bad)


def test_a_number_without_bounds_is_a_fault_of_the_program():
    @dataclass(frozen=True)
    class Unbounded(Settings):
        size: Annotated[float, Knob("Of something. 1 to 2.")] = 1.0

    with pytest.raises(TypeError, match="size: a number must declare its bounds"):
        Unbounded()
