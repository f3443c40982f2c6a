"""Text to 3D with the starter, in small: the judge, who never met the teacher, must see the right thing appear."""

from dataclasses import replace

import pytest
import torch

from dreamer_core.optimize import PRESETS, OptimizationState, optimize
from dreamer_core.optimize.randomness import step_generator
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.teachers.sdxl.loading import load_sdxl
from starter.evaluate_3d import turn
from starter.export import OUTPUT
from starter.judge import COLOUR_NAMES, load_judge
from starter.world import KIND_NAMES

STEPS = 60


@pytest.mark.slow
def test_sixty_steps_make_a_red_mushroom():
    """A mushroom, because the judge takes the grey ball that a run begins with for a mug already."""
    base = PRESETS["starter"].config
    guidance = replace(base.guidance, warmup_steps=STEPS)
    config = replace(base, steps=STEPS, schedule_steps=STEPS, guidance=guidance)
    state = OptimizationState.create(PRESETS["starter"].start(step_generator(0, 0, "init")), config.learning_rates)
    teacher, judge = load_sdxl(OUTPUT), load_judge()

    def belief():
        kinds, colours, _ = judge(turn(state)[0][::3])
        return kinds[:, KIND_NAMES.index("mushroom")].mean(), colours[:, COLOUR_NAMES.index("red")].mean()

    before = belief()
    reports = list(optimize(state, teacher, encode_prompts(teacher, PromptConfig("a red mushroom")), config))
    after = belief()
    print("kind", float(before[0]), float(after[0]), "colour", float(before[1]), float(after[1]))
    chance = 1 / len(KIND_NAMES)
    assert before[0] < 2 * chance
    assert after[0] > 0.5
    assert after[1] > 0.5
    assert sum(report.nonfinite for report in reports) == 0
    assert torch.isfinite(state.params["means"]).all()
