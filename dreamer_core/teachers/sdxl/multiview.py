"""A multi-view adapter inside diffusers' UNet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..multiview.adapter import MultiViewAdapter, RowAttention
from ..multiview.cameras import camera_maps
from ..multiview.files import attention_of, load_adapter


class _Switch:
    """How many views a group has now; 0: the UNet is as it was."""

    views = 0


class _RowsBeside:
    """An attention processor beside which views of a group attend to each other."""

    def __init__(self, plain: Any, rows: RowAttention, switch: _Switch) -> None:
        self._plain, self._rows, self._switch = plain, rows, switch

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
        found: Tensor = self._plain(attn, hidden_states, *args, **options)
        if self._switch.views:
            found = found + self._rows(hidden_states, self._switch.views, attn.heads)
        return found


class InstalledAdapter:
    """An adapter in its UNet, switched off outside `on`."""

    def __init__(self, unet: Any, adapter: MultiViewAdapter) -> None:
        self.network, self._unet, self._switch = adapter, unet, _Switch()
        for place in adapter.places:
            attention = unet.get_submodule(f"{place}.attn1")
            attention.set_processor(_RowsBeside(attention.processor, adapter.at(place), self._switch))

    @classmethod
    def load(cls, unet: Any, path: str | Path) -> InstalledAdapter:
        """The adapter in a file, of the UNet's precision and on its device. Errors: InputError naming --multiview."""
        adapter = load_adapter(path, attention_of(unet), tuple(unet.config.block_out_channels))
        return cls(unet, adapter.to(unet.device, unet.dtype))

    def features(self, azimuths: Tensor, height: int) -> list[Tensor]:
        """What the down blocks and the middle add for a group's views in pictures of `height` pixels."""
        maps = camera_maps(azimuths, height)
        features: list[Tensor] = self.network.adapter(maps.to(self._unet.device, self._unet.dtype))
        return features

    @contextmanager
    def on(self, views: int) -> Iterator[None]:
        """Groups of so many views."""
        self._switch.views = views
        try:
            yield
        finally:
            self._switch.views = 0
