"""The report of a list: one file that holds everything."""

import json
import re

import torch

from dreamer_core.cli import main
from dreamer_core.media import write_mp4
from dreamer_core.report.page import varying
from dreamer_core.report.rows import read_rows


def made(folder):
    """A list's folder: two objects that differ in gamma, one that failed."""
    objects = []
    for i, (name, state) in enumerate((("a", "complete"), ("b", "complete"), ("c", "failed"))):
        options = {"prompt": "a </script> mug", "seed": 1, "guidance.gamma": [0.3, 0.9, 0.3][i]}
        row = {"name": name, "line": 1, "state": state, "error": "gone" if state == "failed" else "", "steps": 3}
        objects.append({**row, "key": name, "gaussians": 7, "seconds": 1.5, "options": options})
        if state == "complete":
            write_mp4((torch.full((64, 64, 3), t / 30) for t in range(30)), folder / name / "turntable.mp4")
    measure = {"name": "janus", "value": 0.25, "protocol": "how it was taken", "better": "lower", "missing": ""}
    (folder / "a" / "measures.json").write_text(json.dumps([measure, {**measure, "name": "clip", "value": None}]))
    (folder / "index.json").write_text(json.dumps({"list": "mugs.jsonl", "objects": objects}))


def test_everything_is_in_one_file(tmp_path, capsys):
    made(tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    path = tmp_path / "report.html"
    assert capsys.readouterr().out == f"{path}\n"
    page = path.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [o["name"] for o in data["objects"]] == ["a", "b", "c"]
    assert data["objects"][0]["options"]["prompt"] == "a </script> mug"  # which does not end the script
    assert data["objects"][0]["sprite"].startswith("data:image/webp;base64,")
    assert data["objects"][2]["sprite"] == ""
    assert data["objects"][0]["measures"] == {"janus": 0.25}
    assert data["protocols"]["janus"] == "how it was taken"
    assert data["varying"] == ["guidance.gamma"]


def test_what_varies(tmp_path):
    made(tmp_path)
    rows, title = read_rows(tmp_path)
    assert (title, varying(rows), varying(rows[:1])) == ("mugs.jsonl", ["guidance.gamma"], [])


def test_a_folder_without_a_list_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "DIR: expected a folder of batch, with index.json" in capsys.readouterr().err
    made(tmp_path)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "x.txt")]) == 2
    assert "--out: expected a name that ends in .html" in capsys.readouterr().err
