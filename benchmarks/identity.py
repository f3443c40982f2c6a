"""What it costs to know a run again: `python -m benchmarks.identity [--json FILE]`.

A network of SDXL's true dimensions in half precision (random weights, 5 GB) is described as the Optimize node describes
it before and after every run, with every byte of every weight. Needs blake3, which ComfyUI brings, and 6 GB of memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks import full_size
from benchmarks.report import finish
from nodes.host.description import Description


def half_precision_unet() -> torch.nn.Module:
    """Filled with random bits once, which no page of zeros can imitate."""
    with torch.device("meta"):
        unet = full_size.unet().eval().requires_grad_(False).half()
    unet = unet.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in unet.parameters():
        flat = parameter.data.view(-1).view(torch.int16)
        flat.random_(generator=generator)
    return unet


def measure(unet: torch.nn.Module, repeats: int) -> list[dict[str, float]]:
    """One row per repeat; the first one reads the code of the classes, too."""
    size = sum(p.numel() * p.element_size() for p in unet.parameters())
    tensors, rows = len(list(unet.parameters())), []
    for _ in range(repeats):
        description, start = Description(), time.perf_counter()
        description.of(unet, "the network")
        assert not description.unknown, description.unknown
        seconds = time.perf_counter() - start
        rows.append({"GB": size / 1e9, "tensors": tensors, "seconds": seconds, "GB/s": size / 1e9 / seconds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    finish(measure(half_precision_unet(), args.repeats), args.json)


if __name__ == "__main__":
    main()
