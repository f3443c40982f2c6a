"""Removes invisible Gaussians and floaters from a finished object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..settings import Knob, Settings


@dataclass(frozen=True)
class CleanupConfig(Settings):
    """The final clean-up; it changes the result only, never the state that a longer run goes on from."""

    group: ClassVar[str] = "cleanup"

    enabled: Annotated[
        bool,
        Knob("Removes invisible Gaussians and floaters from the finished object.", label="clean up", advanced=True),
    ] = True
    min_opacity: Annotated[
        float,
        Knob(
            "Removes Gaussians fainter than this (opacity, 0 to 1). 0.005: invisible ones; 0.05: haze too; 0: none.",
            0.0, 0.99, 0.001, label="faintest opacity",
        ),
    ] = 0.005  # fmt: skip
    """The published pruning threshold, just above what 8 bits can show."""
    floaters: Annotated[
        bool,
        Knob(
            "Also removes groups of Gaussians that touch nothing else and show almost nothing.",
            label="remove floaters",
        ),
    ] = True
    floater_share: Annotated[
        float,
        Knob(
            "Removes a loose piece below this percentage of what the object shows. 0.1 is careful, 2 is bold.",
            0.0, 99.0, 0.01, label="largest floater",
        ),
    ] = 0.1  # fmt: skip
    reach: Annotated[
        float,
        Knob(
            "Two Gaussians touch where they are nearer than this times the sum of their radii. Good: 2 to 4.",
            0.1, 100.0, 0.1, advanced=True,
        ),
    ] = 3.0  # fmt: skip
    neighbours: Annotated[
        int,
        Knob(
            "Number of nearest neighbours of each Gaussian that are checked. Good: 8 to 32.", 1, 256, 1, advanced=True
        ),
    ] = 16


@dataclass(frozen=True)
class CleanupReport:
    """How many Gaussians went."""

    transparent: int = 0
    floaters: int = 0

    @property
    def removed(self) -> int:
        return self.transparent + self.floaters


def clean(gaussians: Gaussians, config: CleanupConfig) -> tuple[Gaussians, CleanupReport]:
    """The object without transparent Gaussians and floaters; something always stays. NaN and inf are left alone.

    Floaters are small connected components of the nearest-neighbour graph, the criterion by which mesh clean-up removes
    isolated pieces. Edges join Gaussians whose `reach`-sigma spheres meet; a component counts by opacity times
    cross-section, summed, so that a large splat beside the object weighs as much as it shows.
    Statistical outlier removal (Rusu's, in PCL and Open3D) was not taken: it judges single points by the distance to
    their neighbours, and would thin out the large Gaussians of flat parts while small dense clumps of haze stay.
    """
    if not config.enabled or len(gaussians) == 0 or gaussians.check_finite() is not None:
        return gaussians, CleanupReport()
    seen = gaussians.opacities >= config.min_opacity
    if not bool(seen.any()):
        return gaussians, CleanupReport()
    kept = gaussians[seen]
    transparent = len(gaussians) - len(kept)
    if not config.floaters:
        return kept, CleanupReport(transparent)
    attached = _attached(kept, config)
    return kept[attached], CleanupReport(transparent, int((~attached).sum()))


def _attached(gaussians: Gaussians, config: CleanupConfig) -> Tensor:
    """Which Gaussians [N] belong to a component with its share of the visible area; the largest one always does."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree  # brought by ComfyUI

    n = len(gaussians)
    if n < 2:
        return torch.ones(n, dtype=torch.bool, device=gaussians.device)
    means = gaussians.means.detach().cpu().double().numpy()
    size = gaussians.scales.detach().amax(dim=1).cpu().double().numpy()
    distances, neighbours = cKDTree(means).query(means, k=min(config.neighbours + 1, n), workers=-1)
    own = np.arange(n)[:, None].repeat(neighbours.shape[1], axis=1)
    touching = distances <= config.reach * (size[own] + size[neighbours])
    edges = coo_matrix((touching[touching], (own[touching], neighbours[touching])), shape=(n, n))
    _, labels = connected_components(edges, directed=False)
    component = torch.from_numpy(labels).long()
    two_largest = gaussians.scales.detach().topk(2, dim=1).values.cpu().double()
    area = gaussians.opacities.detach().cpu().double() * two_largest.prod(dim=1)
    mass = torch.zeros(int(component.max()) + 1, dtype=torch.float64).index_add_(0, component, area)
    large = mass >= config.floater_share / 100 * mass.sum()
    large[mass.argmax()] = True
    return large[component].to(gaussians.device)
