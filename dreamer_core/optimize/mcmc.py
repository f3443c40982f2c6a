"""3D Gaussian Splatting as Markov chain Monte Carlo (Kheradmand et al., arXiv 2404.09591), by gsplat's MCMCStrategy.

gsplat computes two things of it in CUDA only. Here torch does, by their formulas and on every device: a run that
renders without gsplat's CUDA code must not start building it at its first refinement.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from ..errors import DivergenceError
from .density_config import DensityConfig

MAX_COPIES = 51
"""gsplat's limit of copies that one Gaussian is divided into."""
_STAND_INS = threading.Lock()
"""The stand-ins take the place of functions of gsplat's module, which all threads share."""


@cache
def _signed_binomials() -> Tensor:
    """[MAX_COPIES, MAX_COPIES] float64: row N - 1, column k holds C(N, k + 1) (-1)^k / sqrt(k + 1)."""
    table = torch.zeros(MAX_COPIES, MAX_COPIES, dtype=torch.float64)
    for n in range(1, MAX_COPIES + 1):
        for k in range(n):
            table[n - 1, k] = math.comb(n, k + 1) * (-1.0) ** k / math.sqrt(k + 1)
    return table


def relocation(
    opacities: Tensor,  # [N]
    scales: Tensor,  # [N, 3] linear
    ratios: Tensor,  # [N] int, into how many copies each is divided
    binoms: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Opacities and scales of N copies that together look like the one they replace (eq. 9 of the paper).

        o' = 1 - (1 - o)^(1/N)
        s' = s o / sum_{i=1}^{N} sum_{k=0}^{i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1)

    The inner binomials are summed by the hockey-stick identity. `binoms` is gsplat's table, not needed here. Computed
    on the CPU in float64, which not every device has; it happens once a refinement.
    """
    copies = ratios.cpu().long().clamp(1, MAX_COPIES)
    o = opacities.cpu().double().flatten().clamp(1e-9, 1 - 1e-9)
    divided = 1.0 - (1.0 - o) ** (1.0 / copies)
    powers = divided[:, None] ** torch.arange(1, MAX_COPIES + 1)
    total = (_signed_binomials()[copies - 1] * powers).sum(dim=1)
    factor = (o / total)[:, None]
    return divided.to(opacities), factor.to(scales) * scales


def covariances(
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    compute_covar: bool = True,
    compute_preci: bool = False,
    triu: bool = False,
) -> tuple[Tensor, None]:
    """R diag(s^2) R^T [N, 3, 3], with the signature of gsplat's quat_scale_to_covar_preci."""
    from gsplat.utils import normalized_quat_to_rotmat

    scaled = normalized_quat_to_rotmat(torch.nn.functional.normalize(quats, dim=-1)) * scales[:, None]
    return scaled @ scaled.transpose(1, 2), None


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """gsplat's strategy operations with our functions for what it has in CUDA only."""
    from gsplat.strategy import ops

    ours = {"compute_relocation": relocation, "quat_scale_to_covar_preci": covariances}
    with _STAND_INS:
        theirs = {name: getattr(ops, name) for name in ours}
        try:
            for name, function in ours.items():
                setattr(ops, name, function)
            yield
        finally:
            for name, function in theirs.items():
                setattr(ops, name, function)


def refine(
    params: dict[str, torch.nn.Parameter],
    optimizers: dict[str, torch.optim.Optimizer],
    step: int,
    config: DensityConfig,
    means_rate: float,
) -> None:
    """Relocate dead Gaussians, add new ones up to the cap, and shake the means, in place."""
    from gsplat.strategy import MCMCStrategy

    strategy = MCMCStrategy(
        cap_max=config.max_gaussians,
        noise_lr=config.noise,
        refine_start_iter=config.start,
        refine_stop_iter=config.stop,
        refine_every=config.every,
        min_opacity=config.prune_opacity,
    )
    refines = config.start < step < config.stop and step % config.every == 0
    if refines and not (torch.sigmoid(params["opacities"]) > config.prune_opacity).any():
        raise DivergenceError(
            f"no Gaussian is left above density.prune_opacity {config.prune_opacity:g} to move the others to; lower "
            "it, begin with larger opacities, or lower the regulariser of the opacity"
        )
    # The state would hold gsplat's table of binomials, which `relocation` does not need.
    state: dict[str, torch.Tensor | None] = {"binoms": torch.empty(0)}
    with _stand_ins():
        strategy.step_post_backward(params, optimizers, state, step, {}, lr=means_rate)
