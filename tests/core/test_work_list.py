"""Work lists: what a line means, and what is refused."""

import json

import pytest

from dreamer_core.batch.work_list import SUITES, list_path, read_work_list, write_list
from dreamer_core.cli.item_options import checked_items, item_args, option_words
from dreamer_core.errors import InputError


def read(tmp_path, *lines, name="list.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return read_work_list(path)


def test_grids_ranges_defaults_and_aliases(tmp_path):
    items, repeated = read(
        tmp_path,
        "# a comment",
        {"prompt": "a red mug"},
        {"defaults": {"preset": "fast", "checkpoint": "a.safetensors"}},
        {"prompt": ["a mug", "a cup"], "seed": "0..2", "guidance.gamma": [0.3, 0.9], "loras": ["x:0.5", "y"]},
        {"prompt": "a pair", "preset": "paper", "cameras.radius": [[3.4, 3.8]]},
        {"prompt": "a red mug", "preset": "fast", "model": "a.safetensors"},
        {"prompt": "a pair", "preset": "paper", "cameras.radius": "3.4,3.8"},
    )
    assert dict(items[0].options) == {"prompt": "a red mug"}  # the defaults come after it
    grid = items[1:13]
    assert {(i.options["prompt"], i.options["seed"], i.options["guidance.gamma"]) for i in grid} == {
        (prompt, seed, gamma) for prompt in ("a mug", "a cup") for seed in range(3) for gamma in (0.3, 0.9)
    }
    assert all(i.options["lora"] == ["x:0.5", "y"] and i.options["model"] == "a.safetensors" for i in grid)
    assert len({i.name for i in items}) == len(items) == 15
    assert items[13].options["cameras.radius"] == "3.4,3.8"
    assert repeated == 1  # the last line, which says the pair in the other way


def test_names_depend_on_the_options_alone(tmp_path):
    first, _ = read(tmp_path, {"prompt": "a red mug", "seed": 3})
    other, _ = read(tmp_path, {"prompt": "x"}, {"seed": 3, "prompt": "a red mug"}, {"prompt": "a red mug", "seed": 4})
    assert first[0].name == other[1].name != other[2].name
    assert first[0].name.startswith("a-red-mug-s3-")
    again, _ = read_text(tmp_path, write_list(other))
    assert [i.key for i in again] == [i.key for i in other]


def read_text(tmp_path, text):
    (tmp_path / "again.jsonl").write_text(text)
    return read_work_list(tmp_path / "again.jsonl")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_csv_of_spreadsheets_with_other_marks(tmp_path, mark):
    rows = f'prompt{mark}loras{mark}seed\n"a mug, red"{mark}"a:1;b:2"{mark}7\n'
    (item,), _ = read(tmp_path, rows, name="list.csv")
    assert item.options == {"prompt": "a mug, red", "lora": ["a:1", "b:2"], "seed": 7}


def test_csv_says_the_same_as_json(tmp_path):
    rows = 'prompt,seed,loras,guidance.gamma,perp-neg\na red mug,0..1,a:0.5; b,0.3,\n"a mug, blue",7,,,true\n'
    items, _ = read(tmp_path, rows, name="list.csv")
    assert [i.options for i in items] == [
        {"prompt": "a red mug", "seed": 0, "lora": ["a:0.5", "b"], "guidance.gamma": "0.3"},
        {"prompt": "a red mug", "seed": 1, "lora": ["a:0.5", "b"], "guidance.gamma": "0.3"},
        {"prompt": "a mug, blue", "seed": 7, "perp_neg": "true"},
    ]
    args = item_args(items[0], ["--preset", "fast"])
    assert (args.seed, args.lora, args.set) == (0, ["a:0.5", "b"], ["guidance.gamma=0.3"])


def test_a_heading_says_each_name_once(tmp_path):
    with pytest.raises(InputError, match="line 1: expected each name once in the heading, got prompt, seed, seed"):
        read(tmp_path, "prompt,seed, seed\na,1,2\n", name="list.csv")


def test_dynamic_prompts(tmp_path):
    pytest.importorskip("dynamicprompts", reason="needs dynamicprompts")
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "animal.txt").write_text("cat\ndog\n")
    items, _ = read(tmp_path, {"prompt": "a {red|blue} __animal__"})
    assert [i.options["prompt"] for i in items] == ["a red cat", "a red dog", "a blue cat", "a blue dog"]
    drawn = [read(tmp_path, {"prompt": "a {red|blue|green} __animal__", "draws": 4})[0] for _ in range(2)]
    assert [i.key for i in drawn[0]] == [i.key for i in drawn[1]]
    assert 1 <= len(drawn[0]) <= 4
    assert "draws" not in drawn[0][0].options
    weighted, _ = read(tmp_path, {"prompt": "a (red:1.2) mug"})
    assert weighted[0].options["prompt"] == "a (red:1.2) mug"


BAD = [
    ('{"prompt": "a"', "line 1: expected one JSON object, got"),
    ("[1]", "line 1: expected one JSON object, such as"),
    ({"seed": 1}, "line 1: prompt: expected what to make, such as 'a red mug', got nothing"),
    ({"prompt": "a", "seed": "5..2"}, "line 1: seed: expected A..B with A <= B"),
    ({"prompt": "a", "seed": []}, "line 1: seed: expected at least one value, got an empty list"),
    ({"prompt": "a", "model": "x", "checkpoint": "y"}, "line 1: checkpoint: expected each option once"),
    ({"prompt": "a", "name": "../up"}, "line 1: name: expected letters, digits, - and _"),
    ({"prompt": "a", "name": "n", "seed": "0..1"}, "line 1: name: expected another one than line 1's, got n"),
    ({"prompt": "a {red|blue mug"}, "line 1: prompt: expected a template such as {red|blue}"),
    ({"prompt": "a __beast__"}, "line 1: prompt: expected a list beast.txt in"),
    ({"prompt": "a __be*__"}, "line 1: prompt: expected a list be*.txt in"),
    ({"prompt": "a #1 {red|blue} mug"}, "line 1: prompt: expected a template without #"),
    ('{"prompt": "a", "seed": 1, "seed": 2}', "line 1: expected one JSON object, got"),
    ({"prompt": "a", "draws": "\u00b2"}, "line 1: draws: expected a whole number from 1 to"),  # a digit, and no number
    ({"prompt": "a", "name": "index.json"}, "line 1: name: expected none of index.json, report.html"),
    ({"prompt": "a", "name": "Con.1"}, "line 1: name: expected none of Windows' devices, got Con.1"),
    ({"prompt": "a", "name": "é" * 128}, "line 1: name: expected at most 255 bytes, got 256"),
    (
        '{"prompt": "a", "name": "Mug"}\n{"prompt": "b", "name": "mug"}',
        "line 2: name: expected another one than",
    ),
    ("# nothing", "LIST: expected at least one line with a prompt"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_what_no_list_may_say(line, message, tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, line)
    assert message in str(error.value)


WRONG = [
    ({"prompt": "a", "steps": 0}, "line 2: --steps: expected a whole number from 1 to 1000000, got 0"),
    ({"prompt": "a", "gama": 1}, "line 2: --set: expected the name of a setting, got gama"),
    ({"prompt": "a", "out": "x"}, "line 2: out: expected an option of generate that a list may say"),
    ({"prompt": "a", "preset": "nice"}, "line 2: options: expected options of generate, got argument --preset"),
    ({"prompt": "a", "export": "xyz"}, "line 2: --export: expected one or more of"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_every_line_is_checked_before_anything_is_made(line, message, tmp_path):
    items, _ = read(tmp_path, {"prompt": "fine"}, line, {"prompt": "b", "views": -1})
    with pytest.raises(InputError) as error:
        checked_items(items, [])
    assert str(error.value).startswith(message)
    assert "wrong are also lines 3" in str(error.value)


def test_the_options_of_a_line_are_those_of_generate(tmp_path):
    given = {"prompt": "-a mug", "seed": 5, "loras": ["a:0.5", "b"], "perp_neg": True, "compile": False}
    given |= {"schedule_steps": 40, "cleanup.enabled": False, "clip": "off", "export": ["spz"], "model": "m"}
    items, _ = read(tmp_path, given)
    assert "--compile" not in option_words(items[0])
    args = item_args(items[0], ["--preset", "starter", "--seed", "9", "--lora", "c"])
    assert (args.prompt, args.seed, args.preset) == ("-a mug", 5, "starter")
    assert args.lora == ["c", "a:0.5", "b"]
    assert (args.perp_neg, args.clip, args.compile) == (True, "off", False)
    assert args.set == ["schedule_steps=40", "cleanup.enabled=False"]


@pytest.mark.parametrize("suite", ["general", "starter"])
def test_suites_have_forty_prompts(suite):
    items, repeated = read_work_list(list_path(suite))
    assert (len(items), repeated) == (40, 0)
    assert len({item.options["prompt"] for item in items}) == 40
    assert list_path(suite).parent == SUITES


def test_the_starters_suite_is_of_its_world():
    from starter.world import KIND_NAMES, heldout_subjects, parse_prompt

    subjects = [parse_prompt(item.options["prompt"]) for item in read_work_list(list_path("starter"))[0]]
    assert [s.prompt() for s in subjects] == [i.options["prompt"] for i in read_work_list(list_path("starter"))[0]]
    assert {s.kind for s in subjects} == set(KIND_NAMES)
    assert sum(s in heldout_subjects() for s in subjects) == 8


def test_every_option_that_loads_a_teacher_tells_teachers_apart():
    """Else a list would go on with the teacher of the line before."""
    import ast
    import inspect

    from dreamer_core.cli.generate import load_teacher
    from dreamer_core.cli.teachers import WHICH

    tree = ast.parse(inspect.getsource(load_teacher))
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
    }
    assert read <= set(WHICH)
    assert "model" in read
