"""What stands behind the object in the training views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..settings import Knob, Settings


@dataclass(frozen=True)
class BackgroundConfig(Settings):
    """Per view: white, black, else a uniform random colour."""

    group: ClassVar[str] = "background"

    white: Annotated[
        float, Knob("Share of views on white, 0 to 1. Published: 0.34.", 0.0, 1.0, 0.01, advanced=True)
    ] = 0.34
    black: Annotated[
        float,
        Knob(
            "Share of views on black, 0 to 1. Published: 0.33. The rest: random colours.", 0.0, 1.0, 0.01, advanced=True
        ),
    ] = 0.33

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.white + self.black > 1:
            raise InputError("background.white", f"at most 1 together with black, {self.black:g}", self.white)


def sample_backgrounds(config: BackgroundConfig, views: int, generator: torch.Generator) -> Tensor:
    """Background colours [views, 3]."""
    choice = torch.rand(views, 1, generator=generator)
    color = torch.rand(views, 3, generator=generator)
    color = torch.where(choice < config.white, torch.ones_like(color), color)
    black = (choice >= config.white) & (choice < config.white + config.black)
    return torch.where(black, torch.zeros_like(color), color)
