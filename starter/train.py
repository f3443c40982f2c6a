"""Train the starter checkpoint: `python -m starter.train --stage all`; every stage resumes where it stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from dreamer_core.cli.options import resolve_device

STAGES = {
    "data": 0.0, "vae": 22.0, "latents": 0.0, "unet": 120.0, "gold": 8.0, "v_zsnr": 8.0, "few_step": 8.0, "judge": 15.0,
    "multiview": 25.0,
}  # fmt: skip
"""Stage -> minutes on 2 cores, unless told otherwise."""


def run(stage: str, minutes: float, chunks: int, device: torch.device, checkpoint: Path) -> None:
    """One stage."""
    if stage == "data":
        from .dataset import render_all

        render_all(chunks)
        render_all(2, split="test")
    elif stage == "restore":
        from .restore import restore

        restore()
    elif stage == "vae":
        from . import train_vae

        train_vae.train(minutes)
    elif stage == "latents":
        from .latents import encode_all

        encode_all()
    elif stage == "unet":
        from . import train_unet

        train_unet.train(minutes, device=device)
    elif stage == "multiview":
        from . import train_multiview

        train_multiview.train(minutes, checkpoint)
    elif stage == "judge":
        from . import train_judge

        train_judge.train(minutes)
    else:
        from . import train_lora

        train_lora.train(train_lora.ADAPTERS[stage], minutes)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.train", description=__doc__)
    parser.add_argument("--stage", choices=[*STAGES, "restore", "all"], required=True)
    parser.add_argument("--minutes", type=float, help="training time of the stage, interruptions not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--device", default="auto", help="of `unet`: auto (a GPU if there is one), cpu, cuda; rest: CPU"
    )
    parser.add_argument("--chunks", type=int, default=12, help="files of 40 views per kind that `data` traces")
    parser.add_argument(
        "--checkpoint", type=Path, default=Path(__file__).with_name("checkpoint"), help="whose adapter `multiview` is"
    )
    options = parser.parse_args(arguments)
    device = resolve_device(options.device)
    torch.set_num_threads(options.threads)
    for stage in STAGES if options.stage == "all" else [options.stage]:
        run(stage, options.minutes or STAGES.get(stage, 0.0), options.chunks, device, options.checkpoint)


if __name__ == "__main__":
    main()
