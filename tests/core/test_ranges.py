"""Every setting at, below and above its range, through the command line, driven from the declarations."""

import math
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_core.cli import main
from dreamer_core.cli.generate_config import GenerateConfig, flagged, option
from dreamer_core.settings import declared_settings

DECLARED = declared_settings(GenerateConfig)
NUMBERS = [s for s in DECLARED if s.number is not None]
EXAMPLES = 60


def show(*options):
    """Exit code, the values printed by name, and the error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(["generate", "x", "--preset", "official", *options, "--show"])
        except SystemExit as error:  # argparse's own refusals
            code = int(error.code)
    told = [line for line in err.getvalue().splitlines() if not line.startswith("# ")]
    return code, dict(line.split("=", 1) for line in out.getvalue().splitlines() if "=" in line), told


def chosen(setting):
    """What makes the setting one of the run's."""
    words = []
    if setting.variant:
        words += ["--set", f"guidance.method={setting.variant}"]
        if setting.variant == "sds_bridge":
            words += ["--artefacts", "blurry"]
    return words


def assigned(setting, value):
    text = f"{value},{value}" if setting.is_pair else str(value)
    return [*chosen(setting), "--set", f"{setting.name}={text}"]


def outside(setting):
    """The nearest values below and above the range."""
    low, high = setting.knob.low, setting.knob.high
    if setting.number is int:
        return low - 1, high + 1
    return math.nextafter(low, -math.inf), math.nextafter(high, math.inf)


def ids(found):
    return [f"{s.name}-{s.variant}" if s.variant else s.name for s in found]


@pytest.mark.parametrize("setting", NUMBERS, ids=ids(NUMBERS))
def test_a_number_at_its_bounds_is_taken_and_beyond_them_refused(setting):
    for value in (setting.knob.low, setting.knob.high):
        code, shown, told = show(*assigned(setting, value))
        if code == 0:
            found = shown[setting.name].split(",")
            assert all(setting.number(one) == value for one in found)
        else:  # beside another setting's value
            (line,) = told
            assert code == 2
            assert setting.expected() not in line
            assert line.startswith("generate: error: --set ")
    for value in (*outside(setting), math.nan, math.inf):
        code, _, told = show(*assigned(setting, value))
        (line,) = told
        assert code == 2
        assert line.startswith(f"generate: error: --set {setting.name}: expected ")
        assert setting.expected() in line or (setting.number is int and not math.isfinite(value))


FLAGGED = [s for s in flagged() if s.number is not None and not s.is_pair]


@pytest.mark.parametrize("setting", FLAGGED, ids=ids(FLAGGED))
def test_an_option_of_its_own_has_the_same_range(setting):
    for value in outside(setting):
        code, _, told = show(*chosen(setting), f"{option(setting)}={value}")
        (line,) = told
        assert code == 2
        assert line.startswith(f"generate: error: {option(setting)}: expected {setting.expected()}")


TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "none", "on", "1e400", "-0", "١٢", "0x10", "1_000", "1,2,3"])
)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.sampled_from(DECLARED), TEXTS)
def test_any_text_is_a_value_or_one_line(setting, text):
    code, shown, told = show(*chosen(setting), "--set", f"{setting.name}={text}")
    assert (code == 0 and setting.name in shown) or (code == 2 and len(told) == 1), (setting.name, text, told)


@st.composite
def assignments(draw):
    """Several settings inside their ranges, with a method."""
    found = {}
    for setting in draw(st.lists(st.sampled_from([s for s in NUMBERS if not s.variant]), max_size=6)):
        number = st.integers if setting.number is int else st.floats
        value = number(setting.knob.low, setting.knob.high)
        pair = sorted((draw(value), draw(value))) if setting.is_pair else [draw(value)]
        found[setting.name] = ",".join(map(str, pair))
    return found


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(assignments())
def test_what_is_taken_is_what_was_given(given_values):
    code, shown, told = show(*(word for name, text in given_values.items() for word in ("--set", f"{name}={text}")))
    if code == 0:
        for name, text in given_values.items():
            assert [float(x) for x in shown[name].split(",")] == [float(x) for x in text.split(",")]
    else:
        assert (code, len(told)) == (2, 1)
        assert told[0].startswith("generate: error: --set ")
