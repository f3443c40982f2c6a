"""The report of a work list in a real browser: films, sorting, comparison, blind pairs and their file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = Path(__file__).resolve().parent / "artefacts"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A list of four objects that differ in gamma and prompt, with films of plain pictures."""
    sys.path.append(str(ROOT))
    import torch

    from dreamer_core.media import write_mp4
    from dreamer_core.report import read_rows, write_report

    folder, rows = tmp_path_factory.mktemp("report"), []
    for i in range(4):
        name, prompt, gamma = f"object{i}", ("a mug", "a duck")[i // 2], (0.3, 0.9)[i % 2]
        options = {"prompt": prompt, "seed": 1, "guidance.gamma": gamma}
        row = {"name": name, "line": 1, "key": name, "state": "complete", "error": "", "steps": 10 - i}
        rows.append({**row, "gaussians": 7 + i, "seconds": 1.0, "options": options})
        frames = (torch.full((64, 64, 3), 0.4 + t / 80) * torch.eye(3)[i % 3] for t in range(48))
        write_mp4(frames, folder / name / "turntable.mp4")
        measure = {"name": "janus", "value": [0.5, 0.25, 0.75, 0.0][i], "protocol": "twelve views"}
        (folder / name / "measures.json").write_text(json.dumps([measure]))
    (folder / "index.json").write_text(json.dumps({"list": "things.jsonl", "objects": rows}))
    write_report(*read_rows(folder), folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def page(report, tmp_path):
    browser = Browser(report.as_uri(), tmp_path / "profile", ARTEFACTS)
    browser.driver.get(report.as_uri())
    yield browser
    errors = [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"]
    browser.close()
    assert not errors


def click(page, selector):
    page.run("document.querySelector($[0]).click()", selector)


def column(page, index):
    return page.run(
        "return [...document.querySelectorAll('#table tbody tr')].map(r => r.cells[$[0]].textContent)", index
    )


def test_it_turns_sorts_compares_and_records_blind_choices(page):
    place = "return document.querySelector('.film').style.backgroundPositionX"
    first = page.run(place)
    page.wait("it turns", lambda: page.run(place) != first, 30)
    click(page, "#turning")
    page.screenshot("report-objects")
    picture = np.asarray(Image.open(ARTEFACTS / "report-objects.png").convert("RGB")).astype(int)
    assert (picture.max(-1) - picture.min(-1) > 30).sum() > 10_000  # coloured films are seen

    click(page, "[data-view=table]")
    names = page.run("return [...document.querySelectorAll('#table th')].map(h => h.textContent)")
    janus = names.index("janus")
    click(page, f"#table th:nth-child({janus + 1})")
    assert column(page, janus) == ["0", "0.25", "0.5", "0.75"]
    click(page, f"#table th:nth-child({janus + 1})")
    assert column(page, janus) == ["0.75", "0.5", "0.25", "0"]
    page.screenshot("report-table")

    click(page, "[data-view=compare]")
    assert page.run("return document.querySelector('#compare .count').textContent") == "2 pairs"
    page.screenshot("report-side-by-side")

    click(page, "[data-view=blind]")
    shown = "return [...document.querySelectorAll('main > section')].filter(s => s.offsetHeight > 0).map(s => s.id)"
    assert page.run(shown) == ["blind"]
    stage = "return document.querySelector('#blind .stage').innerText"
    assert "gamma" not in page.run(stage)  # nothing tells which is which
    page.screenshot("report-blind")
    page.run("dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))")
    click(page, "#blind [data-choice=neither]")
    assert "neither 1" in page.run("return document.querySelector('#tally').textContent")
    click(page, "#download")
    file = page.profile / "downloads" / "choices.json"
    page.wait("the file of choices", file.exists, 60)
    content = json.loads(file.read_text())
    assert (content["list"], content["setting"], content["pairs"]) == ("things.jsonl", "guidance.gamma", 2)
    one, other = content["choices"]
    assert one["side"] == "left"
    gammas = {f"object{i}": ("0.3", "0.9")[i % 2] for i in range(4)}
    assert one["chosen"] == gammas[one["left"]]
    assert other["chosen"] == "neither"
    assert {one["prompt"], other["prompt"]} == {"a mug", "a duck"}
