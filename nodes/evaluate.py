"""What a splat is worth in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
import torch
from comfy_api.latest import Types, io

from ..dreamer_core.errors import InputError
from ..dreamer_core.evaluation import EvaluationConfig, Measure, evaluate, shown
from ..dreamer_core.evaluation.teacher_scores import pictures_for_teacher, teacher_scores
from ..dreamer_core.gaussians import Gaussians
from .host.progress import say
from .host.sdxl import check_model, loaded_teacher
from .host.splat import from_splat
from .running import on_device
from .sockets import CATEGORY, DreamerPrompt, PromptBundle, errors_named

NAME = "Dreamer XL Evaluate"
WEIGHTS = "dreamer_xl_metrics"
"""Folder in ComfyUI's models folder with the networks of CLIP and LPIPS."""


class DreamerXLEvaluate(io.ComfyNode):
    """STRING and FLOAT: measures of a SPLAT, each with its protocol."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLEvaluate",
            display_name=NAME,
            category=CATEGORY,
            description="Measures a splat: from which side the MODEL itself thinks each view was taken, how often it "
            "sees a front that is none, sharpness, coverage, CLIP score and A-LPIPS; each with its protocol.",
            search_aliases=["clip score", "lpips", "janus rate", "metrics", "score splat", "quality"],
            is_output_node=True,
            inputs=[
                io.Splat.Input("splat", tooltip="Any splat; every object of a batch is measured."),
                io.Model.Input("model", optional=True, tooltip="The MODEL that made it. Not wired: it is not asked."),
                io.Vae.Input("vae", optional=True, tooltip="SDXL's VAE, beside model."),
                DreamerPrompt.Input(
                    "prompt", optional=True, tooltip="From Dreamer XL Prompt, beside model: words and directions."
                ),
                io.String.Input(
                    "text",
                    default="",
                    optional=True,
                    tooltip="What it should be, for the CLIP score: 'a red mug'. Empty: no CLIP score.",
                ),
                io.Int.Input(
                    "views",
                    default=120,
                    min=2,
                    max=360,
                    optional=True,
                    tooltip="Views of the turntable. 120 is the protocol; 24 for a look, but A-LPIPS depends on it.",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels per side of the turntable. 512 is the protocol.",
                ),
                io.Int.Input(
                    "teacher_resolution",
                    default=1024,
                    min=64,
                    max=2048,
                    step=64,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels per side of the views that the MODEL judges. 1024 for SDXL, 128 for the starter.",
                ),
                io.Int.Input(
                    "noises",
                    default=2,
                    min=1,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="Noises per view and timestep for the MODEL; more is slower and steadier. 1 to 4.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="measures", tooltip="A line for each number, with its protocol."),
                io.Float.Output(display_name="direction", tooltip="Share of views named right; -1 without a model."),
                io.Float.Output(display_name="janus", tooltip="Share of other views named front; -1 without a model."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        splat: Types.SPLAT,
        model: Any = None,
        vae: Any = None,
        prompt: PromptBundle | None = None,
        text: str = "",
        views: int = 120,
        resolution: int = 512,
        teacher_resolution: int = 1024,
        noises: int = 2,
    ) -> io.NodeOutput:
        with errors_named(NAME), torch.inference_mode(False):
            weights = Path(folder_paths.models_dir) / WEIGHTS
            config = EvaluationConfig(views, resolution, teacher_resolution, noises, weights)
            check_wires(model, vae, prompt)
            found = [measured(one, config, text, model, vae, prompt) for one in from_splat(splat)]
            lines = "\n\n".join(shown(measures) for measures in found)
            values = {m.name: m.value for m in found[0] if m.value is not None}
            direction, janus = values.get("direction", -1.0), values.get("janus", -1.0)
            say(", ".join(f"{name} {value:.3g}" for name, value in values.items()), cls.hidden.unique_id)
            return io.NodeOutput(lines, direction, janus, ui={"text": [lines]})


def check_wires(model: Any, vae: Any, prompt: PromptBundle | None) -> None:
    """Errors: InputError where what goes with the model is missing, or goes with none."""
    wired = {"model": model, "vae": vae, "prompt": prompt}
    missing = [name for name, value in wired.items() if value is None]
    if 0 < len(missing) < len(wired):
        raise InputError(missing[0], "model, vae and prompt together", "nothing", "wire all three, or none of them")
    if model is not None:
        check_model(model)


def measured(
    gaussians: Gaussians, config: EvaluationConfig, text: str, model: Any, vae: Any, prompt: PromptBundle | None
) -> list[Measure]:
    """The measures of one object."""
    gaussians = gaussians.to(mm.get_torch_device())
    found = evaluate(gaussians, text, config)
    if model is None or prompt is None:
        return found
    pictures = pictures_for_teacher(gaussians, config.teacher_resolution)
    size: dict[str, Any] = {"views": 1, "resolution": config.teacher_resolution, "sizes": prompt.sizes}
    with loaded_teacher(model, vae, **size) as (teacher, _):
        views = on_device(prompt.views, model.load_device)
        pictures = pictures.to(model.load_device)
        return teacher_scores(teacher, views, pictures, noises=config.noises).measures() + found
