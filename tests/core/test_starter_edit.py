"""The measures of `starter.evaluate_edit`, and its way from case to figures, small."""

import json
from dataclasses import replace

import pytest
import torch
from analytic import two_colour_object

from dreamer_core.editing.regions import Box, Region
from dreamer_core.formats import write_ply
from dreamer_core.gaussians import rgb_to_sh
from starter import evaluate_edit
from starter.evaluate_edit import CASES, MUG, Case, measured, named, spoiled
from starter.world import COLOURS, GOLD, Subject

pytestmark = pytest.mark.usefixtures("single_threaded")


def recoloured(scene, rgb, where):
    sh0 = scene.sh0.clone()
    sh0[where] = rgb_to_sh(torch.tensor(rgb))
    return replace(scene, sh0=sh0)


def test_colours_are_named_by_direction():
    shades = torch.tensor([[0.3, 0.04, 0.04], [0.05, 0.1, 0.4], [0.5, 0.36, 0.08], [0.4, 0.4, 0.4]])
    assert named(shades) == ["red", "blue", "gold", "white"]
    assert named(torch.tensor(list(COLOURS.values()))) == list(COLOURS)


def test_what_a_region_changed_and_what_lies_outside_is_measured():
    scene = two_colour_object()
    region = Region((Box((-0.15, 0.35, 0.2), (0.7, 0.7, 0.7)),))
    free = region.mask(scene)
    case = Case("ball", Subject("mug", "green"), "a blue mug", None, region=region)
    good = measured(case, scene, recoloured(scene, [0.1, 0.2, 0.9], free))
    assert good["iou"] == pytest.approx(1)
    assert (good["outside_equal"], good["region_blue"]) == (1, 1)
    assert good["largest_change_outside"] < 1 / 255
    bad = measured(case, scene, recoloured(scene, [0.9, 0.9, 0.9], ~free))
    assert (bad["outside_equal"], bad["region_blue"]) == (0, 0)
    assert bad["largest_change_outside"] > 0.1
    gold = replace(case, region=None, lora="gold.safetensors")
    everything = torch.ones(len(scene), dtype=torch.bool)
    assert measured(gold, scene, recoloured(scene, list(GOLD[0]), everything))["gold"] == 1
    assert measured(gold, scene, recoloured(scene, [0.8, 0.1, 0.1], everything))["gold"] == 0


def test_a_spoiled_splat_is_blurred_and_noised():
    scene = two_colour_object()
    found = spoiled(scene)
    assert (found.log_scales - scene.log_scales).mean() == pytest.approx(0.4, abs=1e-5)
    assert (found.sh0 - scene.sh0).std() == pytest.approx(0.8, abs=0.05)
    assert (found.means - scene.means).std() == pytest.approx(0.02, abs=0.002)


def test_a_case_runs_to_its_figures_and_pictures(tmp_path, monkeypatch, capsys):
    write_ply(two_colour_object(), tmp_path / "a-red-mug.ply")  # in place of a fit
    monkeypatch.setattr(evaluate_edit, "CASES", [replace(c, subject=MUG) for c in CASES if c.name == "handle"])
    for extra in ([], ["--plain"]):
        evaluate_edit.main(["--steps", "2", "--out", str(tmp_path), *extra])
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found) == {"handle", "handle, plain"}
    assert found["handle"]["outside_equal"] == 1
    assert found["handle, plain"]["outside_equal"] == 0
    assert (tmp_path / "handle.png").stat().st_size > 1000
    assert "cpu_seconds" in capsys.readouterr().out
