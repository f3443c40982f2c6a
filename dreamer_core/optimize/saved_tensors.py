"""Whether the tensors of a file are those of a run: all there, of shapes that go together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..gaussians import HARMONICS

ROWS: dict[str, tuple[int, ...]] = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh0": (1, 3)}
"""Parameter -> shape of one Gaussian's row; `shN` has K rows of three."""
COUNTERS = ("step", "bad_steps")
KINDS = ("params", "adam", "density")
PER_GAUSSIAN, TABLES = ("grad2d", "count", "radii"), ("binoms",)
"""What gsplat's density control keeps: a number for each Gaussian, and square tables."""


def wrong(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the tensors of a saved run; empty where nothing is."""
    expected = {f"params.{name}" for name in (*ROWS, "shN")} | set(COUNTERS)
    if missing := sorted(expected - tensors.keys()):
        return f"{missing[0]} is missing"
    for name in COUNTERS:
        if tensors[name].numel() != 1 or tensors[name].is_floating_point() or int(tensors[name]) < 0:
            return f"{name} is no whole number"
    if strange := [name for name in tensors if name not in COUNTERS and name.partition(".")[0] not in KINDS]:
        return f"{strange[0]} is of no known kind"
    return _parameters(tensors) or _moments(tensors) or _density(tensors)


def _parameters(tensors: Mapping[str, Tensor]) -> str:
    count = tensors["params.means"].shape[:1]
    for name, value in tensors.items():
        kind, _, own = name.partition(".")
        if kind != "params":
            continue
        row = (next((k for k in HARMONICS if value.shape[1:2] == (k,)), -1), 3) if own == "shN" else ROWS.get(own)
        if row is None or value.dtype != torch.float32 or tuple(value.shape) != (*count, *row):
            return f"{name} is {value.dtype} of shape {list(value.shape)}"
    return ""


def _moments(tensors: Mapping[str, Tensor]) -> str:
    """Adam's are of their parameter's shape, with the number of steps beside them."""
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind != "adam":
            continue
        own, _, entry = rest.rpartition(".")
        param = tensors.get(f"params.{own}")
        shape = () if entry == "step" else None if param is None else tuple(param.shape)
        if param is None or entry not in ("step", "exp_avg", "exp_avg_sq") or tuple(value.shape) != shape:
            return f"{name} is of shape {list(value.shape)}"
        if value.dtype != torch.float32:
            return f"{name} is {value.dtype}"
        if param.shape[1:2] == (0,):
            return f"{name} belongs to nothing"
    return ""


def _density(tensors: Mapping[str, Tensor]) -> str:
    count = tuple(tensors["params.means"].shape[:1])
    for name, value in tensors.items():
        kind, _, own = name.partition(".")
        if kind != "density":
            continue
        square = own in TABLES and value.ndim == 2 and value.shape[0] == value.shape[1]
        per_gaussian = own in PER_GAUSSIAN and tuple(value.shape) == count
        if value.dtype != torch.float32 or not (square or per_gaussian):
            return f"{name} is {value.dtype} of shape {list(value.shape)}"
    return ""
