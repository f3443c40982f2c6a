"""A small SDXL UNet with weights by formula, and what MV-Adapter's own code says of it.

The numbers were made once by running the authors' pipeline (github.com/huanngzh/MV-Adapter at 4277e00, Apache-2.0) on
these very weights and inputs, in float32 on a CPU.
"""

from __future__ import annotations

import zlib

import torch

AZIMUTHS = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)
SIZE = 128
STEPS, CFG = 5, 3.0
UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 3),
    "cross_attention_dim": 32,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

FIRST = (
    -0.485493,
    0.195403,
    -0.538456,
    0.170989,
    -0.168084,
    0.588143,
    -0.246099,
    0.39002,
    -0.329635,
    0.245013,
    -0.292195,
    0.007151,
    -0.491124,
    0.20378,
    -0.537533,
    0.170856,
    -0.163898,
    0.581954,
    -0.252052,
    0.39617,
    -0.333905,
    0.249399,
    -0.301071,
    0.010545,
)
"""Every 512th value of the first step's noise [12, 4, 16, 16], the empty prompt's six views first."""
SAMPLED = (
    8.53905,
    -24.41835,
    -9.9504,
    -14.38842,
    8.73223,
    7.96622,
    -18.62142,
    7.75979,
    -7.753,
    -8.78853,
    1.83979,
    6.67339,
    12.61558,
    -16.10716,
    9.78671,
    4.14078,
    -4.69879,
    20.46844,
    -20.2679,
    4.54929,
    12.06933,
    -12.56982,
    1.66808,
    -0.88459,
)
"""Every 256th value of the final latents [6, 4, 16, 16]."""
MAPS = (
    (0.5, 1.0, 0.5, 0.5, 0.0, 0.5),
    (0.1464, 0.8536, 0.5, 0.8536, 0.1464, 0.5),
    (0.0, 0.5, 0.5, 1.0, 0.5, 0.5),
    (0.5, 0.0, 0.5, 0.5, 1.0, 0.5),
    (1.0, 0.5, 0.5, 0.0, 0.5, 0.5),
    (0.8536, 0.8536, 0.5, 0.1464, 0.1464, 0.5),
)
"""What the camera map of each view holds."""
LEVELS = (
    11.81794,
    4.28575,
    1.77327,
    0.70762,
    0.04136,
    0.0,
)
"""Noise levels of the sampling."""
LAYOUT = (123, "07017d1fbe97f010")
"""Of names and shapes in the file: how many, and their hash."""


def scattered(count: int, phase: float) -> torch.Tensor:
    """Numbers [count] between -1/2 and 1/2 that look random and need no generator."""
    return (torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + phase) * 43758.5453) % 1.0 - 0.5


def value(name: str, shape) -> torch.Tensor:
    """A tensor that only depends on its name and shape; about as large as trained weights are."""
    shape = tuple(shape)
    count = int(torch.tensor(shape).prod())
    fan = count // shape[0]
    phase = zlib.crc32(name.encode()) % 1000
    wave = 2.4 * scattered(count, phase)
    wave = wave * (fan**-0.5 if len(shape) > 1 else 0.1)
    if len(shape) == 1 and name.endswith("weight"):  # of a norm
        wave = wave + 1.0
    return wave.float().reshape(shape)


def fill(module, prefix: str):
    """All parameters by formula."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(value(f"{prefix}.{name}", parameter.shape))
    return module


def inputs():
    """Noise [6, 4, 16, 16], and of the prompt and of the empty one: tokens [1, 77, 32] and pooled [1, 16]."""
    noise = 12**0.5 * scattered(6 * 4 * 16 * 16, 1.0)
    texts = [value(name, (1, 77, 32)) * 20 for name in ("prompt", "empty")]
    pools = [value(name, (1, 16)) * 4 for name in ("pooled", "empty pooled")]
    return noise.float().reshape(6, 4, 16, 16), texts[0], pools[0], texts[1], pools[1]
