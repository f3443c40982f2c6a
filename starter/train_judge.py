"""Training of the judge, on renders of all combinations, some blurred, noisy or half transparent as splats are."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .augment import blur
from .dataset import WORK, draw_images, load_views
from .judge import WEIGHTS, Judge, read_weights, save_judge
from .progress import Clock, load_checkpoint, save_atomically

CHECKPOINT = WORK / "judge.pt"
BATCH = 64


def soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, H, W] as a splat renderer might show them: each defect in a third of the batch."""
    size, count = images.shape[-1], len(images)

    def some() -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < 0.33).float()

    sigma = 0.3 + 1.7 * float(torch.rand(1, generator=generator))
    images = torch.lerp(images, blur(images, sigma), some())
    gain = 1 + 0.3 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    tint = 1 + 0.16 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    images = torch.lerp(images, images * gain * tint, some())
    # Blotches: smooth noise, as semi-transparent Gaussians leave it.
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=generator)
    blotches = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    images = images + 0.06 * some() * blotches
    images = images + 0.05 * some() * torch.randn(images.shape, generator=generator)
    shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
    edge = images[:, :, :1, :1]
    rolled = F.pad(images - edge, (6, 6, 6, 6))[:, :, 6 + shift[0] :, 6 + shift[1] :][:, :, :size, :size]
    return (rolled + edge).clamp(0, 1)


@torch.no_grad()
def accuracy(judge: Judge, softened: bool = False, seed: int = 5) -> dict[str, float]:
    """The share of the unseen views that the judge names right: kind, colour, both of them, pattern."""
    views, generator = load_views("test"), torch.Generator().manual_seed(seed)
    right = torch.zeros(4)
    for index in torch.arange(len(views)).split(64):
        images, words = draw_images(views, index, generator, everything=True)
        images = soften(images, generator) if softened else images
        said = judge(images.permute(0, 2, 3, 1))
        kind, colour = said.kinds.argmax(-1) == words.kind, said.colours.argmax(-1) == words.colour
        pattern = said.patterns.argmax(-1) == words.pattern
        right += torch.stack([kind.sum(), colour.sum(), (kind & colour).sum(), pattern.sum()])
    return dict(zip(("kind", "colour", "both", "pattern"), (right / len(views)).tolist()))


def train(minutes: float, seed: int = 0) -> None:
    """Train until the budget is spent, then write `judge.safetensors` and print the accuracy on unseen renders."""
    torch.manual_seed(seed)
    views, judge = load_views(), Judge()
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves this one out of its types
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    state = load_checkpoint(CHECKPOINT)
    step, spent = 0, 0.0
    if state is None and WEIGHTS.exists():  # goes on from the shipped weights
        judge.load_state_dict(read_weights(), strict=False)
    elif state is not None:
        judge.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    clock, generator = Clock(minutes, spent), torch.Generator().manual_seed(seed + step)
    bar, mean_loss = tqdm(desc="judge", initial=step, unit="step", mininterval=5), 0.0
    while (share := clock.tick()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-5
        index = torch.randint(len(views), (BATCH,), generator=generator)
        images, words = draw_images(views, index, generator, everything=True)
        images = F.avg_pool2d(images, 2)  # the size that the judge looks at
        said = judge.logits(soften(images, generator).contiguous(memory_format=torch.channels_last))
        asked = zip(said, (words.kind, words.colour, words.pattern))
        loss = torch.stack([F.cross_entropy(logits, right, label_smoothing=0.02) for logits, right in asked]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        bar.update()
        mean_loss += (loss.item() - mean_loss) * max(0.02, 1 / step)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{mean_loss:.3f}", share=f"{share:.0%}")
        if step % 200 == 0:
            parts = {"model": judge.state_dict(), "optimizer": optimizer.state_dict()}
            save_atomically(parts | {"step": step, "spent": clock.spent}, CHECKPOINT)
    judge.eval()
    save_judge(judge)
    print(f"{step * BATCH:,} images; unseen renders {accuracy(judge)}; softened {accuracy(judge, True)}")
