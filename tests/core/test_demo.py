"""dev.py: what `demo` hands to `generate`, read by the real parser."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from dreamer_core.cli import build_parser
from dreamer_core.cli.generate import preset_name
from dreamer_core.cli.generate_config import build_config
from dreamer_core.optimize import PRESETS

ROOT = Path(__file__).resolve().parents[2]
STARTER, PUBLISHED = PRESETS["starter"].config.views, PRESETS["official"].config.views
"""Views of the presets `starter` and `official`."""


@pytest.fixture(scope="module")
def dev():
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(dev, monkeypatch):
    """Prompt, checkpoint, preset and views of the run that `dev.py demo WORDS` starts."""
    calls = []
    monkeypatch.setattr(dev, "core_python", lambda: "python")
    monkeypatch.setattr(dev, "call", lambda *command, **_: calls.append(command) or 0)

    def run(*words):
        assert dev.command_demo(SimpleNamespace(words=list(words))) == 0
        command = calls.pop()
        assert command[:4] == ("python", "-m", "dreamer_core", "generate")
        args = build_parser().parse_args(command[3:])
        return args, build_config(args, PRESETS[preset_name(args)]).views

    return run


@pytest.mark.parametrize(
    "words",
    [(), ("a blue car",), ("--seed", "3"), ("a blue car", "--set", "steps=3", "--method", "ism"), ("--negative", "")],
)
def test_the_demo_is_the_preset_starter(dev, demo, words):
    args, views = demo(*words)
    assert (args.model, preset_name(args), views) == (None, "starter", STARTER)
    assert args.prompt == ("a blue car" if "a blue car" in words else dev.DEMO_PROMPT)


@pytest.mark.parametrize(
    ("words", "views"),
    [
        (("--model", "x.safetensors"), PUBLISHED),
        (("a cat", "--seed", "1", "--model", "x.safetensors"), PUBLISHED),
        (("--pre=official",), PUBLISHED),
        (("--views", "3"), 3),
        (("--set=views=5", "--views", "3"), 5),
    ],
)
def test_what_the_caller_says_about_views_and_checkpoint_holds(demo, words, views):
    assert demo(*words)[1] == views
