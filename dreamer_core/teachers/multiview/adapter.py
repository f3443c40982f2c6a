"""MV-Adapter's networks (Huang et al., 2412.03632), for whichever UNet they are put into.

Names of parameters are those of the published files. Beside every self-attention, on the same normed input, views of
one object attend to each other along equal rows of the pictures; an encoder of camera maps, a T2I-Adapter (Mou et al.,
2302.08453) for SDXL, adds its features in the down blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle, relu, scaled_dot_product_attention

MAP_CHANNELS = 6
"""Of a camera map: where the camera looks, and where it is."""
UNSHUFFLE = 16
"""Pixels per side that the encoder's first layer reads as one."""


class RowAttention(nn.Module):
    """Attention among the views of a group, row by row.

    Every token of row r of a view sees all tokens of row r of all views. With cameras at one elevation whose pictures
    are orthographic, a point of the object is in the same row of every picture.
    """

    def __init__(self, channels: int, operations: Any = nn, **options: Any) -> None:
        super().__init__()
        self.to_q_mv = operations.Linear(channels, channels, bias=False, **options)
        self.to_k_mv = operations.Linear(channels, channels, bias=False, **options)
        self.to_v_mv = operations.Linear(channels, channels, bias=False, **options)
        self.to_out_mv = nn.ModuleList([operations.Linear(channels, channels, **options)])

    def forward(self, x: Tensor, views: int, heads: int) -> Tensor:
        """What is added to the self-attention's output, [G * views, H * W, C], of normed tokens `x` of its shape.

        Errors: ValueError for a batch that is not whole groups, and for pictures that are not square.
        """
        batch, tokens, channels = x.shape
        side = isqrt(tokens)
        if batch % views or side * side != tokens:
            raise ValueError(f"expected groups of {views} square pictures, but got {batch} pictures of {tokens} tokens")

        def rows(of: Tensor) -> Tensor:  # [G * side, heads, views * side, D]
            parts = of.view(batch // views, views, side, side, heads, channels // heads)
            return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, heads, views * side, channels // heads)

        q, k, v = rows(self.to_q_mv(x)), rows(self.to_k_mv(x)), rows(self.to_v_mv(x))
        found = scaled_dot_product_attention(q, k, v)
        found = found.view(batch // views, side, heads, views, side, channels // heads).permute(0, 3, 1, 4, 2, 5)
        projected: Tensor = self.to_out_mv[0](found.reshape(batch, tokens, channels))
        return projected


class _Residual(nn.Module):
    def __init__(self, channels: int, operations: Any, **options: Any) -> None:
        super().__init__()
        self.block1 = operations.Conv2d(channels, channels, 3, padding=1, **options)
        self.block2 = operations.Conv2d(channels, channels, 1, **options)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block2(relu(self.block1(x)))


class _Level(nn.Module):
    def __init__(self, before: int, channels: int, halve: bool, residuals: int, operations: Any, **options: Any):
        super().__init__()
        self.halve = nn.AvgPool2d(2, ceil_mode=True) if halve else nn.Identity()
        self.in_conv = operations.Conv2d(before, channels, 1, **options) if before != channels else nn.Identity()
        self.resnets = nn.Sequential(*(_Residual(channels, operations, **options) for _ in range(residuals)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.resnets(self.in_conv(self.halve(x)))
        return found


class MapEncoder(nn.Module):
    """Features of camera maps for the down blocks of SDXL's UNet, and for its middle.

    `channels` are those of the UNet's blocks, the last one twice. The second level keeps the size of the first, whose
    block has halved already, and the last that of the one before.
    """

    def __init__(self, channels: tuple[int, ...], residuals: int = 2, operations: Any = nn, **options: Any) -> None:
        super().__init__()
        self.conv_in = operations.Conv2d(MAP_CHANNELS * UNSHUFFLE**2, channels[0], 3, padding=1, **options)
        before = (channels[0], *channels)
        self.body = nn.ModuleList(
            _Level(before[i], channels[i], i == 2, residuals, operations, **options) for i in range(len(channels))
        )

    def forward(self, maps: Tensor) -> list[Tensor]:
        """[B, C, h, w] of every level, of maps [B, 6, H, W] in [0, 1]."""
        x, features = self.conv_in(pixel_unshuffle(maps, UNSHUFFLE)), []
        for level in self.body:
            x = level(x)
            features.append(x)
        return features


class MultiViewAdapter(nn.Module):
    """Row attention for every self-attention of a UNet, by diffusers' name of its block, and the encoder of maps."""

    def __init__(
        self, attention: Mapping[str, int], levels: tuple[int, ...], residuals: int = 2, operations: Any = nn,
        **options: Any,
    ) -> None:  # fmt: skip
        """`attention`: channels by place, e.g. "mid_block.attentions.0.transformer_blocks.0"; `operations`: layers."""
        super().__init__()
        self.places = tuple(attention)
        self.rows = nn.ModuleList(RowAttention(c, operations, **options) for c in attention.values())
        self.adapter = MapEncoder(levels, residuals, operations, **options)

    def at(self, place: str) -> RowAttention:
        """The row attention of a place."""
        found = self.rows[self.places.index(place)]
        assert isinstance(found, RowAttention)
        return found

    def file_names(self) -> dict[str, str]:
        """Name in a published file by name here."""
        own = [name for name, _ in self.named_parameters()]
        found = {name: name for name in own if name.startswith("adapter.")}
        for i, place in enumerate(self.places):
            prefix = f"rows.{i}."
            inner = (name.removeprefix(prefix) for name in own if name.startswith(prefix))
            found |= {prefix + name: f"{place}.attn1.processor.{name}" for name in inner}
        return found

    def file_tensors(self) -> dict[str, Tensor]:
        """Tensors under the names of the published files."""
        state = self.state_dict()
        return {name: state[own] for own, name in self.file_names().items()}

    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take all weights from tensors that are named as in the published files."""
        self.load_state_dict({own: tensors[name] for own, name in self.file_names().items()})

    @torch.no_grad()
    def begin_as(self, weights: Mapping[str, Tensor]) -> None:
        """Begin a training as a copy of a UNet's self-attention whose outputs are zero, so that nothing changes yet."""
        for place in self.places:
            rows = self.at(place)
            for part in "qkv":
                rows.get_parameter(f"to_{part}_mv.weight").copy_(weights[f"{place}.attn1.to_{part}.weight"])
            for parameter in rows.to_out_mv.parameters():
                parameter.zero_()
