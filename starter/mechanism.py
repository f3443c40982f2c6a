"""Does TSM's second path cancel the error that inversion accumulates? Measured: `python -m starter.mechanism`.

The exact inversion is DDIM inversion in steps of 5 timesteps (100 of them to t = 500), of the same latents and noise.
It gives x*(t), and its one-step estimate x*(t) - sigma(t) e_cfg(x*(t)) is where an exact inversion would send the
latents: its pseudo-target. A method whose gradient is sigma(t) (e_cfg(x_t) - r) sends them to z minus that.

* `path`: the error of x_t, as a share of the exact one's way from z.
* `target`: the distance of the two pseudo-targets, as a share of the exact one's distance from z.
* `trend`: the cosine of the two ways from z to the pseudo-targets.
* `kept`: how much of the error of the noise at x_t is left in the difference of the two paths,
  |(e(x_t) - r) - (e(x*(t)) - e(x*(mu)))| / |e(x_t) - e(x*(t))| without a prompt. 0: cancelled. 1: nothing is.
* `alike`: the cosine of the two paths' errors, which must be near 1 for them to cancel.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamer_core.cameras import orbit_cameras
from dreamer_core.files import write_atomically
from dreamer_core.guidance import GuidanceConditioning, guided_noise
from dreamer_core.optimize.presets import STARTER_SIDES
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.teachers.moves import FIRST_TIMESTEP, euler_step, invert
from dreamer_core.teachers.noise_levels import noise_level
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl
from dreamer_core.teachers.teacher import Conditioning, Request

from .dataset import WORK
from .export import OUTPUT
from .studies import prompts_20
from .world import KIND_NAMES, render

TIMES = (100, 200, 300, 500, 700)
GAMMAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.954)
"""0 is ISM; 0.3 is the paper's best, 0.954 what its code does."""
DELTA, STRIDE, CFG = 80, 200, 7.5
"""As published, behind the warm-up."""
FINE = 5
"""Timesteps per step of the exact inversion."""


MEASURES = ("path", "target", "trend", "kept", "alike")


@dataclass(frozen=True)
class Row:
    """Means over the latents."""

    t: int
    gamma: float
    target: float
    trend: float
    kept: float
    alike: float
    path: float
    """Error of x_t: |x_t - x*(t)| / |x*(t) - z|; the same for every gamma."""


def latents(teacher: DiffusersSDXL, count: int, size: int) -> tuple[Tensor, GuidanceConditioning]:
    """Clean latents [B, C, h, w] of the world's own objects, each of another kind, from four sides, and words."""
    z, conds = [], []
    kinds = prompts_20()[: len(KIND_NAMES)]
    for i, subject in enumerate(kinds[:: max(1, len(kinds) // count)][:count]):
        cameras = orbit_cameras([90.0 * (i % 4)], 15.0, 3.6, 0.61, size)
        z.append(teacher.encode(render(subject, cameras, torch.ones(1, 3))))
        prompts = encode_prompts(teacher, PromptConfig(subject.prompt(), **STARTER_SIDES))
        conds.append(prompts.at(cameras))
    positive, negative, inversion = (
        Conditioning.cat([getattr(c, name) for c in conds]) for name in ("positive", "negative", "inversion")
    )
    return torch.cat(z), GuidanceConditioning(positive, negative, inversion)


class ExactPath:
    """The trajectory of small steps, kept where it has been."""

    def __init__(self, teacher: DiffusersSDXL, z: Tensor, noise: Tensor, cond: Conditioning, fine: int) -> None:
        self._teacher, self._cond, self._fine = teacher, cond, fine
        self._states = {FIRST_TIMESTEP: z + noise_level(teacher.sigmas, FIRST_TIMESTEP) * noise}

    def at(self, t: int) -> Tensor:
        """x*(t), by small steps from the nearest lower place."""
        now = max(place for place in self._states if place <= t)
        while now < t:
            after = min(now + self._fine, t)
            sigma, sigma_after = (noise_level(self._teacher.sigmas, place) for place in (now, after))
            x = self._states[now]
            (eps,) = self._teacher.predict([Request(x, sigma, self._cond, "inversion")])
            self._states[after] = euler_step(x, eps, sigma, sigma_after)
            now = after
        return self._states[t]


def norms(x: Tensor) -> Tensor:  # [B]
    return x.flatten(1).norm(dim=1)


def cosines(a: Tensor, b: Tensor) -> Tensor:  # [B]
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1, eps=1e-12)


@torch.no_grad()
def measure(
    teacher: DiffusersSDXL, z: Tensor, cond: GuidanceConditioning, noise: Tensor, exact: ExactPath
) -> list[Row]:
    """A row for every t and gamma."""
    empty, sigmas, rows = cond.inversion, teacher.sigmas, []

    def plain(x: Tensor, sigma: float) -> Tensor:
        return teacher.predict([Request(x, sigma, empty, "inversion")])[0]

    for t in TIMES:
        s = max(t - DELTA, FIRST_TIMESTEP)
        sigma_s, sigma_t = noise_level(sigmas, s), noise_level(sigmas, t)
        x_s, _ = invert(teacher, z, s, empty, noise, STRIDE)
        e_s = plain(x_s, sigma_s)
        x_t, true_t = euler_step(x_s, e_s, sigma_s, sigma_t), exact.at(t)
        guided, true_guided = (guided_noise(teacher, x, sigma_t, cond, CFG)[0] for x in (x_t, true_t))
        wrong_t = plain(x_t, sigma_t) - plain(true_t, sigma_t)
        true_way = true_t - sigma_t * true_guided - z
        for gamma in GAMMAS:
            mu = s + round(gamma * (t - s))
            sigma_mu = noise_level(sigmas, mu)
            reference = plain(euler_step(x_s, e_s, sigma_s, sigma_mu), sigma_mu)
            wrong_mu = reference - plain(exact.at(mu), sigma_mu)
            way = -sigma_t * (guided - reference)
            found = {
                "target": norms(way - true_way) / norms(true_way),
                "trend": cosines(way, true_way),
                "kept": norms(wrong_t - wrong_mu) / norms(wrong_t),
                "alike": cosines(wrong_t, wrong_mu),
                "path": norms(x_t - true_t) / norms(true_t - z),
            }
            means = {name: value.mean().item() for name, value in found.items()}
            rows.append(Row(t=t, gamma=gamma, **means))
    return rows


def averaged(same: Sequence[Row]) -> Row:
    """The mean over several noises of rows of one t and gamma."""
    path, target, trend, kept, alike = (statistics.fmean(getattr(row, name) for row in same) for name in MEASURES)
    return Row(same[0].t, same[0].gamma, target, trend, kept, alike, path)


def table(rows: Sequence[Row], name: str) -> str:
    """One measure over t and gamma as Markdown."""
    lines = [f"| {name} | " + " | ".join(f"t {t}" for t in TIMES) + " |", "|---|" + "---|" * len(TIMES)]
    for gamma in GAMMAS:
        label = {0.0: "0 (ISM)", 0.3: "0.3 (paper)", 0.954: "0.954 (code)"}.get(gamma, f"{gamma:g}")
        cells = [next(getattr(r, name) for r in rows if (r.t, r.gamma) == (t, gamma)) for t in TIMES]
        lines.append(f"| {label} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.mechanism", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--latents", type=int, default=8, help="objects, at most 16")
    parser.add_argument("--seeds", type=int, default=1, help="noises per latent")
    parser.add_argument("--out", type=Path, default=WORK / "mechanism.json")
    options = parser.parse_args(arguments)
    teacher = load_sdxl(options.checkpoint)
    z, cond = latents(teacher, options.latents, 128)
    runs, doubts = [], []
    for seed in range(options.seeds):
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
        exact, coarser = (ExactPath(teacher, z, noise, cond.inversion, fine) for fine in (FINE, 2 * FINE))
        runs.append(measure(teacher, z, cond, noise, exact))
        with torch.no_grad():
            doubts.append((norms(coarser.at(500) - exact.at(500)) / norms(exact.at(500) - z)).mean().item())
    rows = [averaged(same) for same in zip(*runs)]
    content = {
        "protocol": f"{len(z)} latents of true objects, {options.seeds} noise(s) each, delta {DELTA}, stride {STRIDE}, "
        f"guidance {CFG}; exact: steps of {FINE} timesteps",
        "exact_against_half_as_many_steps": statistics.fmean(doubts),
        "rows": [asdict(row) for row in rows],
    }
    write_atomically(options.out, lambda path: path.write_text(json.dumps(content, indent=1) + "\n"))
    print(content["protocol"])
    print(
        f"the exact path against one of half as many steps, at t 500: {content['exact_against_half_as_many_steps']:.4f}"
    )
    for name in MEASURES:
        print(f"\n{table(rows, name)}")


if __name__ == "__main__":
    main()
