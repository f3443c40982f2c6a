"""Text to 3D with the starter, in small: the judge must see the right thing appear."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from dreamer_core.diffusion.sdxl_diffusers import load_sdxl
from dreamer_core.initializers.shapes import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.prompts import PromptConfig, encode_prompts
from starter.evaluate_3d import turn
from starter.export import OUTPUT
from starter.judge import COLOUR_NAMES, WEIGHTS, load_judge
from starter.world import KIND_NAMES, STARTER_ORBIT

STEPS = 80


@pytest.mark.slow
@pytest.mark.skipif(not (OUTPUT.exists() and WEIGHTS.exists()), reason="the starter's weights are not here")
def test_a_few_steps_make_the_judge_surer() -> None:
    base = PRESETS["starter"]
    guidance = replace(base.guidance, method="tsm", warmup_steps=STEPS // 3, offset_noise=0.0)
    config = replace(base, steps=STEPS, schedule_steps=STEPS, seed=0, guidance=guidance, cameras=STARTER_ORBIT)
    start = initial_shape("sphere", 4000, step_generator(config.seed, 0, "init"))
    state = OptimizationState.create(start, config.learning_rates)
    teacher, judge = load_sdxl(OUTPUT), load_judge()

    def belief() -> tuple[float, float]:
        kinds, colours = judge(turn(state, views=8))
        kind = kinds[:, KIND_NAMES.index("mug")].mean()
        return float(kind), float(colours[:, COLOUR_NAMES.index("red")].mean())

    before = belief()
    prompts = encode_prompts(teacher, PromptConfig("a red mug"))
    for report in optimize(state, teacher, prompts, config):
        assert report.nonfinite == 0
    after = belief()
    print(before, after)
    assert after[0] > 3 / len(KIND_NAMES)
    assert after[0] > 2 * before[0]
    assert after[1] > max(0.5, before[1])
    assert torch.isfinite(state.params["means"]).all()
