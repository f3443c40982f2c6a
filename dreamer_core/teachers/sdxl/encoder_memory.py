"""What a network keeps for its backward pass."""

from __future__ import annotations

import torch


def saved_bytes_per_pixel(encode: torch.nn.Module, size: int = 64) -> float:
    """Bytes that autograd keeps per pixel of one image in the backward pass of a VAE encoder.

    `encode` takes images [1, 3, size, size] of its own precision. Parameters, which exist anyway, do not count.
    """
    own = {p.untyped_storage().data_ptr() for p in encode.parameters()}
    seen: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # a freed tensor's address could come again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    parameter = next(encode.parameters())
    image = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype, requires_grad=True)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encode(image)
    return sum(seen.values()) / size**2
