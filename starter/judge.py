"""An independent judge: a small CNN, trained on renders only, that names kind, colour and pattern of an image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .world import COLOURS, KIND_NAMES, PATTERNS

WEIGHTS = Path(__file__).with_name("judge.safetensors")
SIZE = 64
COLOUR_NAMES = tuple(COLOURS)


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


class Verdict(NamedTuple):
    """Probabilities, or their logits, in the order of the world's own tables."""

    kinds: Tensor  # [B, 16]
    colours: Tensor  # [B, 8]
    patterns: Tensor  # [B, 3]


class Judge(nn.Module):
    """Images [B, H, W, 3] in [0, 1], any size, to probabilities of what they show."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(3, 32), _block(32, 64), _block(64, 96), _block(96, 128))
        self.kind = nn.Linear(128 * 2, len(KIND_NAMES))
        self.colour = nn.Linear(128 * 2, len(COLOUR_NAMES))
        self.pattern = nn.Linear(128 * 2, len(PATTERNS))

    def logits(self, images: Tensor) -> Verdict:
        """Logits of images [B, 3, H, W]."""
        x = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        x = self.body(x * 2 - 1)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], -1)
        return Verdict(self.kind(x), self.colour(x), self.pattern(x))

    def forward(self, images: Tensor) -> Verdict:
        return Verdict(*(logits.softmax(-1) for logits in self.logits(images.permute(0, 3, 1, 2).float())))

    def names(self, images: Tensor) -> list[tuple[str, str]]:
        """The most probable kind and colour of each image [B, H, W, 3]."""
        kinds, colours, _ = self(images)
        pairs = zip(kinds.argmax(-1).tolist(), colours.argmax(-1).tolist())
        return [(KIND_NAMES[k], COLOUR_NAMES[c]) for k, c in pairs]


def read_weights(path: Path = WEIGHTS) -> dict[str, Tensor]:
    """A judge's tensors in fp32."""
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


def load_judge(path: Path = WEIGHTS) -> Judge:
    """The trained judge."""
    judge = Judge()
    judge.load_state_dict(read_weights(path))
    return judge.eval().requires_grad_(False)


def save_judge(judge: Judge, path: Path = WEIGHTS) -> None:
    """Weights as fp16 safetensors."""
    tensors = {k: v.detach().half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files for the owner only
