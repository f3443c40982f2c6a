"""The nodes that measure: DreamerXLEvaluate, and best_of of DreamerXLOptimize."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def splat(execute):
    return execute("DreamerXLInitialize", source={"source": "sphere", "count": 100}).args[0]


def test_measures_with_and_without_a_model(execute, loaded, splat, monkeypatch, ours):
    monkeypatch.setattr(ours("nodes.evaluate"), "say", lambda text, _: None)
    small = {"splat": splat, "views": 3, "resolution": 64, "teacher_resolution": 64, "noises": 1}
    text, direction, janus = execute("DreamerXLEvaluate", **small).args
    assert (direction, janus) == (-1.0, -1.0)
    assert "3 views of 64 px, polar 90 degrees" in text
    assert "missing: " in text  # the networks of LPIPS
    assert "clip" not in text  # without a text there is nothing to compare with
    model, clip, vae = loaded
    prompt = execute("DreamerXLPrompt", clip=clip, prompt="a red mug").args[0]
    text, direction, janus = execute("DreamerXLEvaluate", **small, model=model, vae=vae, prompt=prompt).args
    assert 0 <= direction <= 1
    assert 0 <= janus <= 1
    assert "12 views of 64 px at elevation 15, words front, side, back" in text
    with pytest.raises(
        ValueError, match="Dreamer XL Evaluate: vae: expected model, vae and prompt together, got nothing"
    ):
        execute("DreamerXLEvaluate", **small, model=model, prompt=prompt)


def test_the_best_of_two_is_the_run_of_its_seed(execute, loaded, splat, tmp_path, monkeypatch, ours):
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    module, said = ours("nodes.running"), []
    monkeypatch.setattr(module, "say", lambda text, _: said.append(text))
    measure = ours("dreamer_core.evaluation.measure").Measure
    worth = iter([[measure("prompt", 0.1, "-")], [measure("prompt", 0.3, "-")]])
    monkeypatch.setattr(module, "judge_trial", lambda *args: next(worth))
    model, clip, vae = loaded
    inputs = {"model": model, "vae": vae, "splat": splat, "preset": "starter", "views": 1, "resolution": 64}
    inputs |= {"prompt": execute("DreamerXLPrompt", clip=clip, prompt="a red mug").args[0], "final_views": 1}
    best = execute("DreamerXLOptimize", **inputs, steps=3, seed=4, best_of=2, trial_steps=1).args[0]
    alone = execute("DreamerXLOptimize", **inputs, steps=3, seed=5).args[0]
    assert torch.equal(best.positions, alone.positions)
    assert torch.equal(best.sh, alone.sh)
    assert any("seed 5, best of 2: prompt 0.30" in text for text in said)
