"""Latents of coloured views, cached in shards, so that the UNet never waits for the autoencoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .dataset import TRACED_FROM, WORK, Words, draw_images, load_views
from .progress import CPU, half_precision, save_atomically
from .train_vae import load_vae

FOLDER = WORK / "latents"
SHARD = 640
NAMES = tuple(f.name for f in fields(Words))
"""What a shard says of its latents."""
ROUNDS = 4
"""Times that every view is encoded, each time in other colours and on another background."""


def encode_all(rounds: int = ROUNDS, style: str = "", folder: Path = FOLDER) -> None:
    """Encode every view `rounds` times into shards of `SHARD` latents; those of this autoencoder and cameras stay."""
    views, vae = load_views(), load_vae().to(memory_format=torch.channels_last)
    scale = float(vae.config.scaling_factor)
    jobs = []
    for turn in range(rounds):
        order = torch.randperm(len(views), generator=torch.Generator().manual_seed(turn))
        jobs += [(turn, i, part) for i, part in enumerate(order.split(SHARD))]

    def encode(job: tuple[int, int, Tensor]) -> None:
        turn, i, part = job
        path = folder / f"{turn:02d}_{i:03d}.pt"
        found = torch.load(path, weights_only=True) if path.exists() else {}
        if (found.get("scale"), found.get("cameras")) == (scale, TRACED_FROM) and set(NAMES) <= set(found):
            return
        generator = torch.Generator().manual_seed(1000 * turn + i)
        pieces, words = [], []
        for batch in part.split(16):
            images, said = draw_images(views, batch, generator, style=style)
            images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), half_precision(CPU):
                pieces.append((vae.encoder(images).float() * scale).half().contiguous())
            words.append(said)
        stacked = {n: torch.cat([getattr(w, n) for w in words]) for n in NAMES}
        save_atomically({"latents": torch.cat(pieces), "scale": scale, "cameras": TRACED_FROM, **stacked}, path)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        list(tqdm(pool.map(encode, jobs), total=len(jobs), desc="latents", mininterval=5))


def load_latents(folder: Path = FOLDER) -> tuple[Tensor, Words]:
    """All shards so far: latents [N, 4, 16, 16] (fp16) and what they show."""
    shards = [torch.load(file, weights_only=True) for file in sorted(folder.glob("*.pt"))]
    if not shards:
        raise FileNotFoundError("no latents yet; run `python -m starter.train --stage latents`")
    latents = torch.cat([s["latents"] for s in shards])
    return latents, Words(*[torch.cat([s[n] for s in shards]) for n in NAMES])
