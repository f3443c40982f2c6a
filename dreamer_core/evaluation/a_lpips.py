"""A-LPIPS: how much neighbouring views differ (Hong et al. 2303.15413), by LPIPS (Zhang et al., 1801.03924)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .measure import Measure
from .views import Views

Network = Literal["vgg", "alex"]
FILES: dict[Network, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""torchvision's weights of ImageNet, by the names that torch.hub keeps them under."""
BATCH = 4
ONLY, NOT_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""torch's variables for what `torch.load` may read."""


def a_lpips(views: Views, distance: Callable[[Tensor, Tensor], Tensor], network: str) -> Measure:
    """Mean LPIPS of every view and the next one, the last and the first included.

    It falls with finer spacing, blur and emptiness, so it means nothing alone. `distance` takes images [B, 3, H, W] in
    [-1, 1] twice and gives the mean over the batch.
    """
    signed = views.images.permute(0, 3, 1, 2) * 2.0 - 1.0
    after = signed.roll(-1, 0)
    total = 0.0
    for a, b in zip(signed.split(BATCH), after.split(BATCH)):
        total += float(distance(a, b)) * len(a)
    protocol = f"mean LPIPS ({network}) of {len(signed)} neighbouring pairs, wrap-around included; {views.protocol}"
    return Measure(f"a-lpips, {network}", total / len(signed), protocol, "lower")


def a_lpips_scores(views: Views, weights: Path) -> list[Measure]:
    """By VGG and by AlexNet; a line that says what is missing where one cannot be had."""
    return [_score(views, weights, network) for network in FILES]


def _score(views: Views, weights: Path, network: Network) -> Measure:
    missing = lacking(weights, network)
    if missing:
        return Measure(f"a-lpips, {network}", None, "mean LPIPS of neighbouring views", "lower", missing)
    try:
        with _hub(weights):
            distance = lpips(network)
    except Exception as error:  # of torch's unpickler, which refuses whatever is no tensor
        reason = (str(error).splitlines() or [""])[0][:160]
        unusable = f"missing: {FILES[network]} in {weights / 'checkpoints'} cannot be used ({reason})"
        return Measure(f"a-lpips, {network}", None, "mean LPIPS of neighbouring views", "lower", unusable)
    return a_lpips(views, distance, network)


def lacking(weights: Path, network: Network) -> str:
    """What LPIPS needs and has not; empty where it has all."""
    for package in ("torchmetrics", "torchvision"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            return f"missing: the package {package} ({error}); pip install {package}"
    file = weights / "checkpoints" / FILES[network]
    return "" if file.is_file() else f"missing: torchvision's {FILES[network]}; put it into {file.parent}"


def lpips(network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    """torchmetrics' LPIPS of images [B, 3, H, W] in [-1, 1], mean over the batch; its linear layers are its own."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    metric = LearnedPerceptualImagePatchSimilarity(net_type=network, normalize=False).eval()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = metric(a, b)
            metric.reset()
            return found

    return distance


@contextmanager
def _hub(folder: Path) -> Iterator[None]:
    """torch.hub looks for weights in `folder`, where they are: nothing is downloaded, and tensors alone are read.

    By itself torch.hub would unpickle the file, and so run what it says.
    """
    before, variables = torch.hub.get_dir(), {name: os.environ.pop(name, None) for name in (ONLY, NOT_ONLY)}
    torch.hub.set_dir(str(folder))
    os.environ[ONLY] = "1"
    try:
        yield
    finally:
        torch.hub.set_dir(before)
        del os.environ[ONLY]
        os.environ.update({name: value for name, value in variables.items() if value is not None})
