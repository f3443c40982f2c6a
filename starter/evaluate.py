"""How often the judge names what was asked for: `python -m starter.evaluate --samples 200`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from .dataset import WORK
from .export import OUTPUT
from .judge import load_judge
from .progress import save_sheet
from .sample import draw, load_pipeline
from .world import VIEW_WORDS, Subject, all_subjects, heldout_subjects


def choose(samples: int, seed: int = 0) -> list[tuple[Subject, str]]:
    """Subjects and views, every second one from the held-out combinations, in a fixed random order."""
    generator = torch.Generator().manual_seed(seed)
    heldout = sorted(heldout_subjects(), key=str)
    trained = [s for s in all_subjects() if s not in heldout_subjects()]
    views, chosen = list(VIEW_WORDS), []
    for i in range(samples):
        pool = heldout if i % 2 else trained
        subject = pool[int(torch.randint(len(pool), (1,), generator=generator))]
        chosen.append((subject, views[i // 2 % len(views)]))
    return chosen


def evaluate(
    samples: int, *, checkpoint: Path = OUTPUT, steps: int = 30, guidance: float = 5.0, sheet: Path | None = None
) -> dict[str, object]:
    """Shares in which kind, colour and both are named right, trained and held-out apart, and the misses by kind."""
    judge, heldout = load_judge(), heldout_subjects()
    asked = choose(samples)
    prompts = [f"{subject.prompt()}, {view}" for subject, view in asked]
    images = draw(load_pipeline(checkpoint), prompts, steps=steps, guidance=guidance)
    said = judge.names(images.permute(0, 2, 3, 1))
    if sheet is not None:
        save_sheet(images, sheet, 20)
    report: dict[str, object] = {"samples": samples, "steps": steps, "guidance": guidance}
    for name, member in (("trained", False), ("heldout", True)):
        rows = [(s, k, c) for (s, _), (k, c) in zip(asked, said) if (s in heldout) == member]
        report[name] = {
            "count": len(rows),
            "kind": sum(s.kind == k for s, k, _ in rows) / len(rows),
            "colour": sum(s.colour == c for s, _, c in rows) / len(rows),
            "both": sum(s.kind == k and s.colour == c for s, k, c in rows) / len(rows),
        }
    misses = Counter(s.kind for (s, _), (k, c) in zip(asked, said) if (s.kind, s.colour) != (k, c))
    return report | {"misses": dict(misses.most_common())}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m starter.evaluate", description=__doc__)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT)
    parser.add_argument("--sheet", type=Path, default=WORK / "evaluate.png")
    options = parser.parse_args(arguments)
    report = evaluate(
        options.samples,
        checkpoint=options.checkpoint,
        steps=options.steps,
        guidance=options.guidance,
        sheet=options.sheet,
    )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
