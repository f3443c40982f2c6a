"""What the starter's studies rest on: equal budgets, the rough cloud, results that survive an interruption."""

import json

import pytest
import torch

from dreamer_core.errors import InputError
from dreamer_core.optimize import PRESETS
from dreamer_core.optimize.presets import STARTER_TRAJECTORY
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.setting_values import changed
from starter import evaluate_3d
from starter.evaluate_3d import name_of, rough_cloud, run, table
from starter.shapes import KINDS
from starter.studies import (
    Variant,
    evaluations_per_step,
    of_ablation,
    of_kinds,
    of_methods,
    prompts_20,
    with_steps,
)
from starter.world import KIND_NAMES, Subject


def test_budgets_count_what_a_method_asks_of_the_network():
    cost = {v.name: evaluations_per_step(v) for v in of_methods(STARTER_TRAJECTORY)}
    assert cost["sds"] == 2
    assert cost["tsm"] == cost["tsm, no clipping"]
    assert cost["tsm"] - cost["ism"] == pytest.approx(1)  # the evaluation at mu


def test_the_preset_is_studied_as_it_is():
    (variant,) = of_kinds(PRESETS["starter"].config)
    preset = PRESETS["starter"]
    assert (variant.config, variant.size, variant.opacity) == (preset.config, preset.size, preset.opacity)
    assert evaluations_per_step(variant) == 2


def test_every_variant_of_the_ablation_differs_from_the_first():
    first, *others = of_ablation(STARTER_TRAJECTORY)
    for variant in others:
        assert (variant.config, variant.prompt, variant.cloud) != (first.config, first.prompt, first.cloud)
    assert len({v.name for v in of_ablation(STARTER_TRAJECTORY)}) == 1 + len(others)


def test_twenty_prompts_hold_every_kind():
    subjects = prompts_20()
    assert len(set(subjects)) == 20
    assert {s.kind for s in subjects} == set(KIND_NAMES)


def test_schedules_stretch_with_the_steps():
    twice = with_steps(STARTER_TRAJECTORY, 2 * STARTER_TRAJECTORY.steps)
    assert (twice.steps, twice.schedule_steps) == (2 * STARTER_TRAJECTORY.steps,) * 2
    for step in (0, 10, 40, 100):
        assert twice.guidance.warmup(2 * step) == STARTER_TRAJECTORY.guidance.warmup(step)


def test_the_rough_cloud_lies_on_the_object():
    points = rough_cloud("chair", 500, step_generator(0, 0, "init")).means
    distance = torch.stack([d for d, _ in KINDS["chair"](points)], -1).amin(-1)
    assert len(points) == 500
    # The noise along the normal: half of the points within 0.67 standard deviations of 0.03, nearly all within 4.
    assert 0.01 < distance.abs().median() < 0.03
    assert distance.abs().max() < 0.16


class _Inline:
    """A pool that works at once, in this process."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        return None

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future


def test_results_are_kept_and_not_made_again(tmp_path, monkeypatch):
    made = []

    def fake(folder, checkpoint, variant, subject, seed):
        made.append(name_of(variant, subject, seed))
        zeros = dict.fromkeys(evaluate_3d.COLUMNS, 0.0)
        return zeros | {"variant": variant.name, "prompt": subject.prompt(), "seed": seed, "iou": float(seed)}

    monkeypatch.setattr(evaluate_3d, "_job", fake)
    monkeypatch.setattr(evaluate_3d, "ProcessPoolExecutor", _Inline)
    sds = changed(STARTER_TRAJECTORY, {"guidance.method": "sds"})
    variants = [Variant("tsm", STARTER_TRAJECTORY), Variant("sds", sds)]
    chair, duck = Subject("chair", "green"), Subject("duck", "yellow")
    run(variants, [(chair, 0)], 800, tmp_path, tmp_path, 1)
    assert made == ["tsm-a-green-chair-0", "sds-a-green-chair-0"]
    results = run(variants, [(s, seed) for seed in (0, 1) for s in (chair, duck)], 800, tmp_path, tmp_path, 1)
    assert len(made) == len(set(made)) == len(results) == 8
    assert json.loads((tmp_path / "results.json").read_text()).keys() == set(made)
    other = tmp_path / "other" / "unet"
    other.mkdir(parents=True)
    (other / "diffusion_pytorch_model.safetensors").write_bytes(b"new weights")
    with pytest.raises(InputError, match="results of these weights"):
        run(variants, [(chair, 0)], 800, tmp_path, tmp_path / "other", 1)
    with pytest.raises(InputError, match=r"and settings, got (tsm|sds)-a-green-chair-0 in .*results\.json"):
        run(variants, [(chair, 0)], 400, tmp_path, tmp_path, 1)  # other numbers of steps
    assert len(made) == 8
    # Means over the objects, and the deviation of the two seeds' means, 0 and 1.
    assert "| tsm | 4 | 0.5 ± 0.71 |" in table(results)
