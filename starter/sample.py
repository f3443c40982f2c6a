"""Draw pictures with the starter checkpoint: `python -m starter.sample "a red mug" --out grid.png`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch import Tensor

from .export import OUTPUT
from .progress import save_sheet
from .world import VIEW_WORDS


def load_pipeline(checkpoint: Path = OUTPUT, lora: Path | None = None) -> StableDiffusionXLPipeline:
    """The checkpoint as diffusers loads any SDXL, in fp32, with a DDIM scheduler."""
    pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    if lora is not None:
        pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(
    pipe: StableDiffusionXLPipeline, prompts: Sequence[str], *, steps: int = 30, guidance: float = 5.0, seed: int = 0
) -> Tensor:
    """Images [B, 3, 128, 128] in [0, 1]."""
    pictures = []
    for start in range(0, len(prompts), 16):
        batch = list(prompts[start : start + 16])
        output = pipe(
            batch,
            negative_prompt=[""] * len(batch),
            height=128,
            width=128,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed + start),
            output_type="pt",
        )
        pictures.append(output.images.float().clamp(0, 1))
    return torch.cat(pictures)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.sample", description=__doc__)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("grid.png"))
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--lora", type=Path)
    parser.add_argument("--columns", type=int, default=8, help="pictures per prompt: two of each view")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    views = list(VIEW_WORDS)
    prompts = [f"{p}, {views[i % len(views)]}" for p in options.prompts for i in range(options.columns)]
    pipe = load_pipeline(options.checkpoint, options.lora)
    images = draw(pipe, prompts, steps=options.steps, guidance=options.guidance, seed=options.seed)
    save_sheet(images, options.out, options.columns)
    print(options.out)


if __name__ == "__main__":
    main()
