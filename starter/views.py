"""How well the checkpoint tells directions apart: `python -m starter.views`.

The denoiser as a classifier (Li et al., arXiv 2303.16203): of four captions that differ in the view word, the one
under which the noise of an unseen render is predicted best names the view.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from .dataset import draw_images, load_views
from .export import OUTPUT
from .model import alphas_cumprod, predict
from .sample import load_pipeline
from .world import KIND_NAMES, VIEW_WORDS

TIMES = (300, 500, 700)
WITHIN = 25.0
"""Degrees that a render may be away from the middle of its view."""


@torch.no_grad()
def told_views(checkpoint: Path = OUTPUT, each: int = 8, noises: int = 2) -> dict[str, float]:
    """Kind -> share of unseen renders (`each` of every view) whose view word the denoiser finds; chance is 1/4."""
    pipe, views = load_pipeline(checkpoint), load_views("test")
    generator, table = torch.Generator().manual_seed(0), alphas_cumprod()
    away = {middle: ((views.azimuth - middle + 180) % 360 - 180).abs() for middle in VIEW_WORDS.values()}
    shares = {}
    for k, kind in enumerate(KIND_NAMES):
        near = [((views.kind == k) & (away[middle] < WITHIN)).nonzero()[:each, 0] for middle in away]
        truth = torch.cat([torch.full((len(index),), i) for i, index in enumerate(near)])
        images, words = draw_images(views, torch.cat(near), generator)
        z = pipe.vae.encoder(images * 2 - 1) * pipe.vae.config.scaling_factor
        captions = [f"{words.subject(i).prompt()}, {view}" for i in range(len(words)) for view in VIEW_WORDS]
        context, _, pooled, _ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
        errors = torch.zeros(len(z), len(VIEW_WORDS))
        for t in [t for t in TIMES for _ in range(noises)]:
            noise = torch.randn(z.shape, generator=generator)
            x = (table[t].sqrt() * z + (1 - table[t]).sqrt() * noise).repeat_interleave(len(VIEW_WORDS), 0)
            eps = predict(pipe.unet, x, torch.full((len(x),), t), context, pooled)
            difference = eps - noise.repeat_interleave(len(VIEW_WORDS), 0)
            errors += difference.square().sum((1, 2, 3)).view(len(z), len(VIEW_WORDS))
        shares[kind] = (errors.argmin(-1) == truth).float().mean().item()
    return shares


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.views", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    shares = told_views(parser.parse_args(arguments).checkpoint)
    print(json.dumps({"mean": sum(shares.values()) / len(shares), **shares}, indent=2))


if __name__ == "__main__":
    main()
