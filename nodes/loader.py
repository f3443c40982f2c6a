"""SDXL checkpoints, and the starter that comes with the pack."""

from __future__ import annotations

from typing import Any

import comfy.sd
import folder_paths
from comfy_api.latest import io

from ..dreamer_core.errors import InputError
from ..dreamer_core.teachers.sdxl.checkpoints import CheckpointKind, identify
from .host.sdxl import check_model
from .host.starter import load_starter
from .sockets import CATEGORY, errors_named

STARTER = "starter (built in)"

WORTH_LOADING = (
    CheckpointKind.SDXL,
    CheckpointKind.SDXL_EDM,
    CheckpointKind.SDXL_NO_TEXT,
    CheckpointKind.SDXL_NO_VAE,
    CheckpointKind.SDXL_UNET,
    CheckpointKind.QUANTISED,
    CheckpointKind.PICKLE,
    CheckpointKind.UNKNOWN,
)
"""Kinds that are SDXL, or that only ComfyUI can tell."""


def load_checkpoint(name: str) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a file in the `checkpoints` folder. Errors: InputError where it is not SDXL."""
    path = folder_paths.get_full_path_or_raise("checkpoints", name)
    found = identify(path)
    remedy = "choose an SDXL base checkpoint, or the starter"
    if found.kind not in WORTH_LOADING:
        raise InputError("checkpoint", "an SDXL checkpoint", f"{name}, which is {found.looks_like}", remedy)
    loaded = comfy.sd.load_checkpoint_guess_config(
        path,
        output_vae=True,
        output_clip=True,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
    )
    if loaded is None:
        raise InputError("checkpoint", "an SDXL checkpoint", f"{name}, which is {found.looks_like}", remedy)
    try:
        check_model(loaded[0])
    except InputError as error:
        raise InputError("checkpoint", error.expected, f"{name}, which holds {error.got}", remedy) from error
    return loaded[0], loaded[1], loaded[2]


class DreamerXLLoader(io.ComfyNode):
    """MODEL, CLIP and VAE of an SDXL checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLLoader",
            display_name="Dreamer XL Loader",
            category=CATEGORY,
            description="Loads an SDXL checkpoint, or the small one that comes with the pack. LoRA loaders and model "
            "patches go between this and Dreamer XL Optimize.",
            search_aliases=["load checkpoint", "sdxl", "starter", "load model 3d"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=[STARTER, *folder_paths.get_filename_list("checkpoints")],
                    default=STARTER,
                    tooltip="An SDXL file from the checkpoints folder. The starter is small, runs on any computer, "
                    "and knows simple coloured objects such as 'a red mug'.",
                )
            ],
            outputs=[
                io.Model.Output(tooltip="The UNet; LoRAs and patches may follow."),
                io.Clip.Output(tooltip="Both text encoders, for Dreamer XL Prompt."),
                io.Vae.Output(tooltip="The VAE, for Dreamer XL Optimize."),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        with errors_named("Dreamer XL Loader"):
            return io.NodeOutput(*(load_starter() if checkpoint == STARTER else load_checkpoint(checkpoint)))
