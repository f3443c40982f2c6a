"""sigma(t) and the parameterisation of a model's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from .noise_levels import scaled_linear_sigmas
from .safetensors_header import Header

PredictionType = Literal["epsilon", "v_prediction"]
PREDICTION_TYPES: tuple[PredictionType, ...] = ("epsilon", "v_prediction")
SMALLEST_ALPHA = 2.0**-24  # stands for the zero of a zero-terminal-SNR schedule, as in diffusers' Euler scheduler


@dataclass(frozen=True)
class NoiseSchedule:
    """The discrete noise levels a model was trained on, and what its output means."""

    sigmas: Tensor  # [T] ascending, float64
    prediction: PredictionType
    zero_terminal_snr: bool = False


def zero_terminal_sigmas(sigmas: Tensor) -> Tensor:
    """sigma(t) [T] rescaled so that the last step is pure noise (Lin et al., 2305.08891, algorithm 1), but finite."""
    root = (1.0 + sigmas**2).rsqrt()  # sqrt of the cumulative alpha
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas = (root**2).clamp_min(SMALLEST_ALPHA)
    return ((1.0 - alphas) / alphas).sqrt()


def schedule_from_config(config: Mapping[str, Any]) -> NoiseSchedule:
    """Schedule of a diffusers `scheduler_config.json`. Errors: InputError for what this program cannot drive."""
    scheduler = str(config.get("_class_name", ""))
    if "sigma_data" in config or scheduler.startswith(("EDM", "Flow")):
        got = f"{scheduler or 'a scheduler with sigma_data'}, an EDM or flow-matching model"
        raise InputError("--model", "an epsilon or v_prediction model", got, "use it in ComfyUI's nodes")
    kind = config.get("beta_schedule", "scaled_linear")
    if kind != "scaled_linear" or config.get("trained_betas") is not None:
        raise InputError("--model", "a scaled_linear noise schedule", kind)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise InputError("--model", "an epsilon or v_prediction model", prediction)
    start, end = float(config.get("beta_start", 0.00085)), float(config.get("beta_end", 0.012))
    sigmas = scaled_linear_sigmas(start, end, int(config.get("num_train_timesteps", 1000)))
    zero = bool(config.get("rescale_betas_zero_snr", False))
    return NoiseSchedule(zero_terminal_sigmas(sigmas) if zero else sigmas, prediction, zero)


def schedule_config_from_header(header: Header) -> dict[str, Any]:
    """What a single file says: marker tensors `v_pred` and `ztsnr`, or ModelSpec's `modelspec.prediction_type`."""
    spec = header.metadata.get("modelspec.prediction_type", "").lower()
    v = "v_pred" in header or spec in ("v", "v_prediction", "v-prediction", "vpred")
    return {"prediction_type": "v_prediction" if v else "epsilon", "rescale_betas_zero_snr": "ztsnr" in header}


def eps_from_output(output: Tensor, x: Tensor, sigma: Tensor, prediction: PredictionType) -> Tensor:
    """Noise [B, C, h, w] from a network's output at VE latents `x` and `sigma` [B, 1, 1, 1].

    v = sqrt(a) eps - sqrt(1 - a) z (Salimans & Ho, 2202.00512), hence
    eps = (sqrt(1 + sigma^2) v + sigma x) / (1 + sigma^2).
    """
    if prediction == "epsilon":
        return output
    square = 1.0 + sigma**2
    return (square.sqrt() * output + sigma * x) / square


def network_input(x: Tensor, sigma: Tensor) -> Tensor:
    """VE latents scaled to the variance-preserving form that the network reads; `sigma` [B, 1, 1, 1]."""
    return x * torch.rsqrt(1.0 + sigma**2)
