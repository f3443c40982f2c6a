"""What a step of full-size SDXL needs of a GPU's memory: `python -m benchmarks.memory [--json FILE]`.

Everything is computed, on any machine: networks of SDXL's true dimensions run on tensors without data while the bytes
alive are counted (live_bytes.py). Only what carries "estimate" in its row is none of that: what CUDA and cuDNN take for
themselves, and gsplat's buffers. No network weights are needed and hardly any memory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import full_size
from benchmarks.live_bytes import parameter_bytes, peak_bytes
from benchmarks.report import machine, print_table
from dreamer_core.optimize.memory import HEADROOM, MemoryPlan, plan_memory
from dreamer_core.teachers.sdxl.predictor import checkpoint_blocks

GIB = 2**30
GAUSSIANS = 200_000
FLOATS_PER_GAUSSIAN = 14
"""Mean, quaternion, scales, opacity, colour (degree 0); each with its gradient and Adam's two moments."""
INTERSECTIONS_PER_PIXEL = 2.0
"""Tile list entries; 100,000 Gaussians on a sphere make 1.3 per pixel at 512 x 512 and fewer at 1024 x 1024."""
CUDA_CONTEXT = 0.6 * GIB
WORKSPACE = 2.0 * GIB
"""cuDNN's and cuBLAS's workspaces, and what the allocator loses to rounding; between what two measured steps took of
one card (docs/performance.md, "On a GPU")."""
CASES = (("24 GB card", 24, 1024, 4, "auto"), ("12 GB card", 12, 768, 4, "low"))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Modules are built in this precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def unet_call(samples: int, resolution: int) -> int:
    """Peak of the activations of one call of the UNet in half precision, without gradient."""

    def make() -> Callable[[], Any]:
        with default_dtype(torch.float16):
            unet = full_size.unet().eval().requires_grad_(False)
            size = resolution // 8
            x, tokens = torch.empty(samples, 4, size, size), torch.empty(samples, 77, 2048)
            added = {"text_embeds": torch.empty(samples, 1280), "time_ids": torch.empty(samples, 6)}
        times = torch.empty(samples, dtype=torch.float32)

        def call() -> Any:
            with torch.no_grad():
                return unet(x, times, encoder_hidden_states=tokens, added_cond_kwargs=added, return_dict=False)[0]

        return call

    return peak_bytes(make)


def encoding(resolution: int, views: int, dtype: torch.dtype, *, gradient: bool, checkpoint: bool) -> int:
    """Peak of encoding some views at once and, with `gradient`, of the way back to the image."""

    def make() -> Callable[[], Any]:
        with default_dtype(dtype):
            vae = full_size.vae().eval().requires_grad_(False)
            images = torch.empty(views, 3, resolution, resolution).requires_grad_(gradient)
        if checkpoint:
            checkpoint_blocks(vae.encoder)

        def work() -> None:
            with torch.set_grad_enabled(gradient):
                latents = vae.encode(images).latent_dist.mean
            if gradient:
                latents.backward(torch.empty_like(latents))

        return work

    return peak_bytes(make)


def weights() -> dict[str, int]:
    """Bytes of the parts: UNet and text encoders in half precision, VAE encoder in single."""
    with torch.device("meta"):
        with default_dtype(torch.float16):
            unet, towers = full_size.unet(), full_size.text_encoders()
        vae = full_size.vae()
    return {
        "UNet, fp16": parameter_bytes(unet),
        "VAE encoder, fp32": parameter_bytes(vae),
        "text encoders, fp16 (released after use)": sum(parameter_bytes(tower) for tower in towers),
    }


def scene_bytes(resolution: int, views: int) -> tuple[float, float]:
    """Gaussians with gradients and Adam's moments (computed), and gsplat's buffers of a rendering (estimate)."""
    gaussians = GAUSSIANS * FLOATS_PER_GAUSSIAN * 4 * 4
    pixels = views * resolution**2
    # Per entry: 8 + 4 bytes, twice for the sort. Per pixel: colour, depth and alpha with gradients, last entry.
    # Per Gaussian and view: radii, mean, depth, conic, colour with gradients.
    buffers = pixels * (INTERSECTIONS_PER_PIXEL * 24 + 11 * 4) + views * GAUSSIANS * 22 * 4
    return gaussians, buffers


def step_peaks(resolution: int, views: int, plan: MemoryPlan) -> dict[str, int]:
    """Computed peaks of a step's three network phases on top of what stays resident."""
    at_once = 1 if plan.recompute_encoder else views
    samples = min(plan.max_batch or 3 * views, 3 * views)
    return {
        f"UNet, {samples} samples": unet_call(samples, resolution),
        "encode without gradient": encoding(resolution, at_once, torch.float32, gradient=False, checkpoint=False),
        f"encode, {at_once} view(s), and back{', checkpointed' if plan.checkpoint_encoder else ''}": encoding(
            resolution, at_once, torch.float32, gradient=True, checkpoint=plan.checkpoint_encoder
        ),
    }


def budget(card: str, gigabytes: int, resolution: int, views: int, mode: Any) -> list[dict[str, Any]]:
    """A table of what lies in the memory of a card, and what is left of it."""
    parts = weights()
    resident = parts["UNet, fp16"] + parts["VAE encoder, fp32"]
    gaussians, buffers = scene_bytes(resolution, views)
    total = gigabytes * GIB
    plan = plan_memory(mode, int(total - CUDA_CONTEXT - resident - gaussians), resolution=resolution, views=views)
    title = f"{card}, {views} views of {resolution} x {resolution}, memory: {mode}"
    rows = [
        ("UNet, fp16", parts["UNet, fp16"], "computed"),
        ("VAE encoder, fp32", parts["VAE encoder, fp32"], "computed"),
        (f"{GAUSSIANS:,} Gaussians, gradients, Adam", gaussians, "computed"),
        ("gsplat's buffers", buffers, "estimate"),
        ("CUDA context", CUDA_CONTEXT, "estimate"),
        ("workspaces, rounding", WORKSPACE, "estimate"),
    ]
    peaks = step_peaks(resolution, views, plan)
    largest = max(peaks.values())
    all_rows = [*rows, *((f"peak: {name}", size, "computed") for name, size in peaks.items())]
    used = sum(size for _, size, _ in rows) + largest
    all_rows += [("in use at the largest peak", used, "sum"), ("left of the card", total - used, "difference")]
    return [{"budget": title, "what": what, "GiB": size / GIB, "how": how} for what, size, how in all_rows]


def parts_table() -> list[dict[str, Any]]:
    """The building blocks of every budget."""
    rows = [{"what": name, "GiB": size / GIB, "bytes per pixel": ""} for name, size in weights().items()]
    for samples, resolution in ((1, 1024), (3, 1024), (12, 1024), (3, 768), (12, 768)):
        size = unet_call(samples, resolution)
        rows.append(
            {
                "what": f"UNet call, {samples} samples, {resolution} px, fp16",
                "GiB": size / GIB,
                "bytes per pixel": size / (samples * resolution**2),
            }
        )
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for text, options in (
            ("no gradient", {"gradient": False, "checkpoint": False}),
            ("and back", {"gradient": True, "checkpoint": False}),
            ("and back, checkpointed", {"gradient": True, "checkpoint": True}),
        ):
            size = encoding(1024, 1, dtype, **options)
            what = f"VAE encode, 1 view, 1024 px, {name}, {text}"
            rows.append({"what": what, "GiB": size / GIB, "bytes per pixel": size / 1024**2})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    parts = parts_table()
    print_table(parts)
    for case in CASES:
        found = budget(*case)
        print(f"\n{found[0]['budget']}")
        print_table([{key: row[key] for key in ("what", "GiB", "how")} for row in found])
        rows += found
    print(f"\nThe memory plan itself counts on {HEADROOM:.0%} of the free memory. {machine()}")
    if args.json:
        record = {"machine": machine(), "parts": parts, "budgets": rows}
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
