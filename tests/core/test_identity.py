"""What tells one run from another, and what does not."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dreamer_core.optimize import PRESETS, OptimizeConfig
from dreamer_core.optimize.identity import Identity, plain
from dreamer_core.optimize.recipe import Recipe
from dreamer_core.prompts import PromptConfig
from dreamer_core.setting_values import changed
from dreamer_core.settings import declared_settings

ROOT = Path(__file__).resolve().parents[2]
UNDECIDING = {"steps", "memory", "recompute_encoder"}
"""Besides the clean-up: what leaves the state at a step as it is."""
MUG = PromptConfig("a mug")


def identity(config, **inputs):
    return Identity(config.recipe, {"prompt": MUG, "model": {"path": Path("x")}, **inputs})


def another(setting):
    """A value that differs from the default and is allowed beside all other defaults."""
    special = {
        "guidance.method": "ism",
        "guidance.t_min": 22,
        "background.white": 0.3,
        "resolution": 512,
        "cleanup.enabled": True,  # off by default in a run, on in the group
    }
    if setting.name in special:
        return special[setting.name]
    if setting.options:
        return next(o for o in setting.options if o != setting.default)
    if setting.kind is bool:
        return not setting.default
    if setting.is_pair:
        low, high = setting.default
        return (low, (low + high) / 2) if low != high else (low / 2, low or setting.knob.high)
    value = setting.default
    if value is None:
        return setting.knob.low
    moved = value + (1 if setting.number is int else 0.01)
    return moved if moved <= setting.knob.high else value - 1


def is_undeciding(setting):
    return setting.name in UNDECIDING or setting.name.startswith("cleanup.")


@pytest.mark.parametrize("setting", declared_settings(OptimizeConfig), ids=lambda s: f"{s.name}-{s.variant}")
def test_every_setting_tells_runs_apart_or_leaves_the_state_as_it_is(setting):
    base = OptimizeConfig()
    if setting.variant:
        base = changed(base, {"guidance.method": setting.variant})
    moved = changed(base, {setting.name: another(setting)})
    assert moved != base
    same = identity(moved).key == identity(base).key
    assert same == is_undeciding(setting)
    assert (moved.recipe == base.recipe) == is_undeciding(setting)
    named = identity(moved).differences(identity(base).described)
    assert named == [] if same else any(text.startswith(f"{setting.name}: ") for text in named)


def test_a_recipe_has_what_decides_and_no_more():
    assert {f.name for f in fields(OptimizeConfig)} - {f.name for f in fields(Recipe)} == UNDECIDING | {"cleanup"}


def test_inputs_tell_runs_apart():
    base = identity(OptimizeConfig())
    assert base.key == identity(OptimizeConfig()).key
    others = [
        identity(OptimizeConfig(), prompt=PromptConfig("a cup")),
        identity(OptimizeConfig(), prompt=PromptConfig("a mug", side="profile")),
        identity(OptimizeConfig(), model={"path": Path("y")}),
        identity(OptimizeConfig(), model={"path": Path("x"), "loras": [{"weight": 0.5}]}),
        identity(OptimizeConfig(), init="sphere"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 1 + len(others)


def test_methods_with_equal_settings_are_told_apart():
    keys = {name: identity(changed(OptimizeConfig(), {"guidance.method": name})).key for name in ("ism", "sdi", "asd")}
    keys["sds"] = identity(changed(OptimizeConfig(), {"guidance.method": "sds", "guidance.cfg": 7.5})).key
    assert len(set(keys.values())) == 4


def test_presets_are_told_apart_unless_they_differ_in_what_decides_nothing():
    assert len({identity(preset.config).key for preset in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize("preset", ["official", "starter"])
def test_the_key_is_the_same_in_every_process(preset):
    program = (
        "from pathlib import Path\n"
        "from dreamer_core.optimize import PRESETS\n"
        "from dreamer_core.optimize.identity import Identity\n"
        "from dreamer_core.prompts import PromptConfig\n"
        f"config = PRESETS[{preset!r}].config\n"
        "inputs = {'prompt': PromptConfig('a mug'), 'model': {'path': Path('x')}}\n"
        "print(Identity(config.recipe, inputs).key)\n"
    )

    def key(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert key("1") == key("2") == identity(PRESETS[preset].config).key


@pytest.mark.parametrize("value", [{"a", "b"}, {"names": frozenset({"x"})}, object(), [b"bytes"], {"f": print}])
def test_what_cannot_be_told_for_certain_is_refused(value):
    """Its text would differ between processes, or be the same for different things."""
    with pytest.raises(TypeError, match="cannot be part of a run's identity"):
        plain({"model": value})


def test_what_is_saved_can_be_read_back_and_compared():
    run = identity(replace(OptimizeConfig(), seed=3))
    saved = json.loads(json.dumps(run.described))
    assert run.differences(saved) == []


def test_differences_name_what_changed():
    saved = json.loads(json.dumps(identity(OptimizeConfig(), count=9, gone=1).described))
    del saved["config"]["views"]
    config = changed(OptimizeConfig(), {"guidance.cfg": 3.0, "cameras.radius_min": 3.0})
    assert identity(config, prompt=PromptConfig("a cup"), count=9).differences(saved) == [
        "prompt.prompt: a mug -> a cup",
        "gone: 1 -> nothing",
        "guidance.cfg: 7.5 -> 3.0",
        "cameras.radius: [5.2, 5.5] -> [3.0, 5.5]",
        "views: nothing -> 4",
    ]
