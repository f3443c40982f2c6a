"""Help pages and translations: every node and every input has its words, and none are left of what has gone."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
LOCALES = ROOT / "locales"
LANGUAGES = sorted(p.name for p in LOCALES.iterdir())


@pytest.fixture(scope="module")
def info(pack):
    """What /object_info says of our nodes."""
    extension = asyncio.run(pack.comfy_entrypoint())
    found = {}
    for node in asyncio.run(extension.get_node_list()):
        found[node.GET_SCHEMA().node_id] = node.GET_NODE_INFO_V1()
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def tools():
    sys.path.append(str(ROOT))
    from tools import help_pages, locales

    return help_pages, locales


def test_every_node_has_a_page_and_every_page_a_node(info):
    assert sorted(p.stem for p in PAGES.glob("*.md")) == sorted(info)


def test_pages_name_every_input_in_words_and_table(info, tools):
    """After a change of a node's inputs: python -m tools.help_pages."""
    pages, _ = tools
    for name, node in info.items():
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n"), name
        assert "**When:**" in page
        assert "## Good to know" in page
        rows = {line.split("|")[1].split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
        wanted = {i for i, _, _ in pages.all_inputs(node["input"])}
        assert wanted | set(node["output_name"]) == set(rows), name
        assert pages.filled(page, node) == page, name


def test_pictures_are_there_and_small(info):
    used = set()
    for name in info:
        found = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", (PAGES / f"{name}.md").read_text(encoding="utf-8"))
        assert found, f"{name} has no picture"
        for alt, target in found:
            assert len(alt) > 10
            assert 1000 < (PAGES / target).stat().st_size < 60_000, target
            used.add(Path(target).name)
    assert used == {p.name for p in (PAGES / "assets").iterdir()}


def test_pages_name_no_input_that_does_not_exist(info, tools):
    """Words in code style with a dot or underscore are inputs, presets, files or examples."""
    pages, _ = tools
    known = {i for node in info.values() for i, _, _ in pages.all_inputs(node["input"])}
    known |= {i.rpartition(".")[2] for i in known}
    for path in PAGES.glob("*.md"):
        prose = re.sub(r"<!-- written.*<!-- end -->", "", path.read_text(encoding="utf-8"), flags=re.S)
        for word in re.findall(r"`(\w+\.\w+|[a-z]+_[a-z_]+)`", prose):
            assert word in known | {"low_vram", "sds_bridge", "gold.safetensors", "compressed.ply", "compact.ply"}, (
                f"{path.stem}: {word}"
            )


def keys(texts, path=""):
    for name, value in texts.items():
        yield from keys(value, f"{path}{name}.") if isinstance(value, dict) else [f"{path}{name}"]


def read(language, name):
    return json.loads((LOCALES / language / name).read_text(encoding="utf-8"))


def test_english_is_what_the_nodes_say(info, tools):
    """After a change of a node's texts: python -m tools.locales."""
    assert read("en", "nodeDefs.json") == tools[1].english(info)


def test_one_text_for_several_options_says_what_holds_for_all_of_them(info):
    """An editor looks up one text for an input that several options have: nothing in it may be one option's alone."""
    texts = read("en", "nodeDefs.json")
    assert texts["DreamerXLTSMGuidance"]["inputs"]["method_cfg"]["tooltip"].endswith("25 to 100 where it is 100.")
    assert texts["DreamerXLTSMGuidance"]["inputs"]["method_gamma"]["tooltip"].endswith("low_vram: 0.3).")
    assert texts["DreamerXLGradientClip"]["inputs"]["mode_threshold"]["tooltip"].endswith("-1: the preset's (0.05).")
    options = info["DreamerXLTSMGuidance"]["input"]["required"]["method"][1]["options"]
    tips = {o["key"]: o["inputs"].get("optional", {}).get("cfg", ["", {}])[1].get("tooltip", "") for o in options}
    assert tips["tsm"].endswith("-1: the preset's (7.5).")
    assert tips["sds"].endswith("low_vram: 100; starter: 4).")
    assert tips["sds_bridge"].endswith("-1: the method's own (100).")


@pytest.mark.parametrize("language", [x for x in LANGUAGES if x != "en"])
def test_other_languages_say_as_much(language):
    """After a change of a node's inputs: python -m tools.locales, then translate what it names."""
    for name in ("nodeDefs.json", "main.json"):
        assert set(keys(read(language, name))) == set(keys(read("en", name)))
    ours, theirs = read(language, "nodeDefs.json"), read("en", "nodeDefs.json")

    def long_texts(texts):
        for value in texts.values():
            yield from long_texts(value) if isinstance(value, dict) else ([value] if len(value) > 25 else [])

    same = set(long_texts(ours)) & set(long_texts(theirs))
    assert not same, f"not translated: {sorted(same)}"


def facts(text):
    """What every translation must say, too: numbers, and the names of inputs, choices and presets."""
    numbers = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d)[, \u202f](?=\d{3}\b)", "", text))
    return set(numbers) | set(re.findall(r"\b[a-z]+_[a-z_]+\b", text))


def leaves(texts, path=""):
    for name, value in texts.items():
        yield from leaves(value, f"{path}{name}.") if isinstance(value, dict) else [(f"{path}{name}", value)]


@pytest.mark.parametrize("language", [x for x in LANGUAGES if x != "en"])
def test_other_languages_name_the_same_numbers(language):
    """A text whose English has changed since: 5.2 that became 5.5, an input or a paper more, another preset."""
    theirs = dict(leaves(read(language, "nodeDefs.json")))
    stale = {
        key: (text, theirs[key])
        for key, text in leaves(read("en", "nodeDefs.json"))
        if facts(text) != facts(theirs[key])
    }
    assert not stale


def test_translations_reach_the_frontend(server, info):
    served = server.get("/i18n")
    for language in LANGUAGES:
        assert served[language]["nodeDefs"]["DreamerXLOptimize"] == read(language, "nodeDefs.json")["DreamerXLOptimize"]
    for name in info:
        assert b"## Inputs" in server.get(f"/extensions/dreamer-xl/docs/{name}.md")
    assert server.get("/extensions/dreamer-xl/docs/assets/DreamerXLPrompt.jpg").startswith(b"\xff\xd8")
