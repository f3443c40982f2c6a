"""Time and memory of an optimisation step: `python -m benchmarks.step`, with `--full-size` for SDXL's own dimensions.

`ours` is the loop as it is. `official-like` does what the released code does: e_s evaluated twice, an evaluation at
s = 0 that is thrown away, three calls where one would do, and all views' encoder activations alive at once.
Each variant runs in a process of its own, so that its peak memory is its own. What a step spends outside the UNet, the
VAE and the rasterizer should stay below 5 % at 20,000 Gaussians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import full_size
from benchmarks.report import finish, single_threaded_processor_time, wait
from dreamer_core.cli.generate import starter_checkpoint
from dreamer_core.guidance import GuidanceConditioning, GuidanceResult, Timesteps
from dreamer_core.guidance.tsm import TSM
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import PRESETS, OptimizationState, OptimizeConfig, optimize
from dreamer_core.optimize.memory import MemoryMode, free_bytes, plan_memory
from dreamer_core.optimize.report import PHASES, Stopwatch
from dreamer_core.prompts import PromptConfig, ViewPrompts, encode_prompts
from dreamer_core.setting_values import nested
from dreamer_core.teachers.moves import FIRST_TIMESTEP, euler_step
from dreamer_core.teachers.teacher import Conditioning, Request, Teacher, classifier_free

VARIANTS = ("ours", "ours, low memory", "official-like")


class Counted:
    """A teacher whose network calls are timed and counted."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.seconds, self.samples = teacher, 0.0, 0

    @property
    def sigmas(self) -> Tensor:
        return self.teacher.sigmas

    def encode(self, images: Tensor) -> Tensor:
        return self.teacher.encode(images)

    def predict(self, requests: Sequence[Request]) -> list[Tensor]:
        wait(requests[0].x.device)
        start = time.perf_counter()
        out = self.teacher.predict(requests)
        wait(requests[0].x.device)
        self.seconds += time.perf_counter() - start
        self.samples += sum(len(r.x) for r in requests)
        return out

    def combine(
        self, positive: Request, negative: Request, e_positive: Tensor, e_negative: Tensor, scale: float
    ) -> Tensor:
        return self.teacher.combine(positive, negative, e_positive, e_negative, scale)


class OfficialLike(TSM):
    """TSM's gradient with the released code's order and number of evaluations (docs/method.md)."""

    def __call__(
        self, predictor: Teacher, z: Tensor, noise: Tensor, steps: Timesteps, cond: GuidanceConditioning
    ) -> GuidanceResult:
        sigmas = [float(v) for v in predictor.sigmas]
        mu = steps.s + round(self.gamma * (steps.t - steps.s))
        calls = 0

        def eps(x: Tensor, at: int, c: Conditioning) -> Tensor:
            nonlocal calls
            calls += 1
            return predictor.predict([Request(x, sigmas[at], c, "inversion")])[0]

        x, now = z + sigmas[FIRST_TIMESTEP] * noise, FIRST_TIMESTEP
        if steps.s == now:
            eps(x, now, cond.inversion)  # made and thrown away
        while now < steps.s:
            after = min(now + steps.stride, steps.s)
            x = euler_step(x, eps(x, now, cond.inversion), sigmas[now], sigmas[after])
            now = after
        x_mu = euler_step(x, eps(x, steps.s, cond.inversion), sigmas[steps.s], sigmas[mu])
        x_t = euler_step(x, eps(x, steps.s, cond.inversion), sigmas[steps.s], sigmas[steps.t])  # again
        both = Conditioning.cat([cond.positive, cond.negative])
        positive, negative = eps(torch.cat([x_t, x_t]), steps.t, both).chunk(2)
        target = eps(x_mu, mu, cond.inversion)
        gradient = sigmas[steps.t] * (classifier_free(positive, negative, self.cfg) - target)
        return GuidanceResult(gradient, calls=calls, samples=calls + 1)


def full_size_sdxl(device: torch.device) -> tuple[Any, ViewPrompts]:
    """SDXL's UNet and VAE encoder with random weights, UNet in half precision on CUDA; prompts are random, too."""
    from dreamer_core.teachers.noise_schedule import schedule_from_config
    from dreamer_core.teachers.sdxl.configs import SCHEDULER_CONFIG
    from dreamer_core.teachers.sdxl.predictor import DiffusersSDXL

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        unet, vae = full_size.unet(), full_size.vae()
    for module in (unet, vae):
        module.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    unet.to(dtype)
    if device.type == "cuda":  # what the single-precision weights took is free memory for the plan
        torch.cuda.empty_cache()
    teacher = DiffusersSDXL(
        unet=unet, vae=vae, towers=(), schedule=schedule_from_config(dict(SCHEDULER_CONFIG)), source={}
    )
    generator = torch.Generator().manual_seed(0)

    def random_prompt() -> Conditioning:
        tokens, pooled = torch.randn(1, 77, 2048, generator=generator), torch.randn(1, 1280, generator=generator)
        return Conditioning(tokens, pooled).to(device)

    front, side, back, negative, inversion = (random_prompt() for _ in range(5))
    return teacher, ViewPrompts(front, side, back, None, negative, inversion)


def small_sdxl(model: str | None, device: torch.device) -> tuple[Any, ViewPrompts]:
    """The named checkpoint, else the starter."""
    from dreamer_core.teachers.sdxl.loading import load_sdxl

    teacher = load_sdxl(model or starter_checkpoint(), device=device)
    prompts = encode_prompts(teacher, PromptConfig("a red mug"))
    teacher.release_text_encoders()
    return teacher, prompts


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One variant in this process."""
    if args.cpu_time:
        single_threaded_processor_time()
    device = torch.device(args.device)
    make = full_size_sdxl(device) if args.full_size else small_sdxl(args.model, device)
    teacher, prompts = make
    config: OptimizeConfig = replace(
        PRESETS["official" if args.full_size else "starter"].config,
        steps=args.steps + args.warmup,
        views=args.views,
        resolution=args.resolution,
    )
    config = replace(config, density=replace(config.density, enabled=False))
    if args.variant != "official-like":
        mode: MemoryMode = "low" if args.variant.endswith("low memory") else "auto"
        plan = plan_memory(
            mode,
            free_bytes(device),
            resolution=config.resolution,
            views=config.views,
            encoder_bytes_per_pixel=teacher.encoder_bytes_per_pixel(),
        )
        teacher.limit_memory(checkpoint_encoder=plan.checkpoint_encoder, max_batch=plan.max_batch)
        config = replace(config, recompute_encoder=plan.recompute_encoder)
    counted = Counted(teacher)
    scene = initial_shape("sphere", args.count, torch.Generator().manual_seed(0)).to(device)
    state = OptimizationState.create(scene, config.learning_rates)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    reports, network = [], []
    if args.variant == "official-like":
        method = OfficialLike(**nested(config.guidance.method))
        config = replace(config, guidance=replace(config.guidance, method=method))
    if device.type == "cuda":  # else a phase would hold what the one before has left running
        lap = Stopwatch.lap

        def lap_when_done(watch: Stopwatch, phase: str) -> None:
            wait(device)
            lap(watch, phase)

        mock.patch.object(Stopwatch, "lap", lap_when_done).start()
    for report in optimize(state, counted, prompts, config, args.renderer):
        wait(device)
        if report.step >= args.warmup:
            reports.append(report)
            network.append(counted.seconds)
        counted.seconds = 0.0
        if report.step == args.warmup - 1:
            counted.samples = 0
    phases = {name: statistics.median(r.seconds[name] for r in reports) for name in PHASES}
    total = statistics.median(r.total_seconds for r in reports)
    outside = phases["cameras"] + phases["clip"] + phases["update"]
    outside += statistics.median(r.seconds["guidance"] - n for r, n in zip(reports, network))
    return {
        "variant": args.variant,
        "s/step": total,
        "UNet": statistics.median(network),
        **{name: seconds for name, seconds in phases.items() if name != "guidance"},
        "outside UNet, VAE and rasterizer": f"{100 * outside / total:.1f} %",
        "evaluations/view": counted.samples / args.views / len(reports),
        "peak GiB": peak_bytes(device) / 2**30,
    }


def peak_bytes(device: torch.device) -> int:
    """Peak memory: allocated on the GPU, else resident in the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Every variant in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an SDXL (default: the starter)")
    parser.add_argument(
        "--full-size", action="store_true", help="SDXL's dimensions with random weights, preset official"
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--views", type=int, default=None, help="default: 2, full size 4")
    parser.add_argument("--resolution", type=int, default=None, help="default: 128, full size 1024")
    parser.add_argument("--count", type=int, default=20_000, help="Gaussians")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--renderer", default="auto")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: all")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for busy machines")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.views = args.views or (4 if args.full_size else 2)
    args.resolution = args.resolution or (1024 if args.full_size else 128)
    if args.child:
        (args.variant,) = args.variant
        print(json.dumps(measure(args)))
        return
    rows = []
    for variant in args.variant or VARIANTS:
        options = [f"--{n}={getattr(args, n)}" for n in ("steps", "warmup", "views", "resolution", "count", "device")]
        options += [f"--renderer={args.renderer}", f"--variant={variant}", "--child"]
        options += ["--full-size"] if args.full_size else []
        options += ["--cpu-time"] if args.cpu_time else []
        options += [f"--model={args.model}"] if args.model else []
        command = [sys.executable, "-m", "benchmarks.step", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{variant}: failed, see above", file=sys.stderr)
            continue
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    if rows:
        finish(rows, args.json)


if __name__ == "__main__":
    main()
