"""The scene: 3D Gaussians with gsplat's parameters and activations (3DGS, Kerbl et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SH_C0 = 0.28209479177387814
"""Value of the spherical harmonic of degree 0: colour = 0.5 + SH_C0 * sh0."""

GSPLAT_NAMES = {
    "means": "means",
    "quats": "quats",
    "log_scales": "scales",
    "logit_opacities": "opacities",
    "sh0": "sh0",
    "shN": "shN",
}
"""Our field names -> the keys that gsplat's strategies and exporter expect."""


def rgb_to_sh(rgb: Tensor) -> Tensor:
    """Degree-0 coefficients of display colours in [0, 1] (any shape)."""
    return (rgb - 0.5) / SH_C0


def sh_to_rgb(sh0: Tensor) -> Tensor:
    """Display colours of degree-0 coefficients (any shape), not clamped."""
    return sh0 * SH_C0 + 0.5


HARMONICS = (0, 3, 8, 15)
"""Higher coefficients of a colour, by degree from 0 to 3."""


@dataclass(frozen=True)
class Gaussians:
    """Unactivated parameters of N Gaussians; `shN` holds the (degree + 1)^2 - 1 = K higher coefficients."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4] wxyz, any length above 0
    log_scales: Tensor  # [N, 3]
    logit_opacities: Tensor  # [N]
    sh0: Tensor  # [N, 1, 3]
    shN: Tensor  # [N, K, 3]

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": (), "sh0": (1, 3)}
        for name, tail in shapes.items():
            got = tuple(getattr(self, name).shape)
            if got != (n, *tail):
                raise ValueError(f"Gaussians.{name} must have shape {(n, *tail)}, but got {got}")
        got = tuple(self.shN.shape)
        if len(got) != 3 or got[0] != n or got[2] != 3 or got[1] not in HARMONICS:
            raise ValueError(f"Gaussians.shN must have shape ({n}, 0|3|8|15, 3), but got {got}")

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def scales(self) -> Tensor:  # [N, 3]
        """Standard deviations along the local axes, in world units."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:  # [N]
        return self.logit_opacities.sigmoid()

    @property
    def sh(self) -> Tensor:  # [N, 1 + K, 3]
        return torch.cat([self.sh0, self.shN], dim=1)

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self.shN.shape[1] + 1) - 1

    @property
    def rgb(self) -> Tensor:  # [N, 3]
        """Base colours, not clamped."""
        return sh_to_rgb(self.sh0[:, 0])

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of field name and tensor."""
        for f in fields(self):
            yield f.name, getattr(self, f.name)

    def map(self, fn) -> Gaussians:  # type: ignore[no-untyped-def]
        """The same function applied to every tensor."""
        return Gaussians(**{name: fn(value) for name, value in self.tensors()})

    def detach(self) -> Gaussians:
        return self.map(lambda x: x.detach().clone())

    def to(self, device: torch.device | str) -> Gaussians:
        return self.map(lambda x: x.to(device))

    def __getitem__(self, index: Tensor | slice) -> Gaussians:
        """A subset (mask, indices or slice over the Gaussians)."""
        return self.map(lambda x: x[index])

    def with_log_scales(self, log_scales: Tensor) -> Gaussians:
        """The same Gaussians with other scales, e.g. noisy ones while training."""
        return replace(self, log_scales=log_scales)

    def as_params(self) -> dict[str, torch.nn.Parameter]:
        """Leaf parameters under gsplat's names, detached from whatever made them."""
        return {
            GSPLAT_NAMES[name]: torch.nn.Parameter(value.detach().clone().float()) for name, value in self.tensors()
        }

    @staticmethod
    def from_params(params: Mapping[str, Tensor]) -> Gaussians:
        """View of gsplat-named parameters; gradients flow through."""
        return Gaussians(**{ours: params[theirs] for ours, theirs in GSPLAT_NAMES.items()})

    @staticmethod
    def from_activated(
        means: Tensor,  # [N, 3]
        quats: Tensor,  # [N, 4]
        scales: Tensor,  # [N, 3] linear
        opacities: Tensor,  # [N] in (0, 1)
        rgb: Tensor,  # [N, 3] display colours
    ) -> Gaussians:
        """Gaussians from linear scales, opacities and colours; opacities are kept inside (1e-6, 1 - 1e-6)."""
        return Gaussians(
            means=means,
            quats=quats,
            log_scales=scales.clamp_min(1e-9).log(),
            logit_opacities=opacities.clamp(1e-6, 1 - 1e-6).logit(),
            sh0=rgb_to_sh(rgb)[:, None],
            shN=means.new_zeros(means.shape[0], 0, 3),
        )

    def check_finite(self) -> str | None:
        """Name of the first parameter that holds NaN or inf, or None."""
        for name, value in self.tensors():
            if not bool(torch.isfinite(value).all()):
                return name
        return None
