"""Adapter files: what a UNet needs of one, and what to say where a file is another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import InputError
from ..safetensors_header import BrokenFileError, Header, read_header
from .adapter import MultiViewAdapter

PUBLISHED = "mvadapter_t2mv_sdxl.safetensors"
EXPECTED = f"a multi-view adapter for this model (for SDXL: {PUBLISHED})"
REMEDY = f"get {PUBLISHED} from Hugging Face, huanngzh/mv-adapter"
MARK = ".attn1.processor.to_q_mv.weight"
"""Ends the names of row attention's queries in a file."""


def adapter_for(attention: Mapping[str, int], blocks: tuple[int, ...], **layers: Any) -> MultiViewAdapter:
    """An adapter of the right shape: channels of self-attention by place, and those of the UNet's down blocks."""
    return MultiViewAdapter(attention, (*blocks, blocks[-1]), **layers)


def load_adapter(
    path: str | Path, attention: Mapping[str, int], blocks: tuple[int, ...], field: str = "--multiview", **layers: Any
) -> MultiViewAdapter:
    """The adapter in a file, for a UNet as `adapter_for` takes it.

    Errors: InputError naming `field` for a file that is missing, not an adapter, or one for another model.
    """
    from safetensors.torch import load_file

    path = Path(path).expanduser()
    with torch.device("meta"):
        shapes = adapter_for(attention, blocks)
        expected = {name: tuple(tensor.shape) for name, tensor in shapes.file_tensors().items()}
    check_adapter(path, expected, field)
    adapter = adapter_for(attention, blocks, **layers)
    adapter.load_file_tensors(load_file(path))
    return adapter.requires_grad_(False).eval()


def check_adapter(path: Path, expected: Mapping[str, tuple[int, ...]], field: str) -> None:
    """Errors: InputError unless the file holds exactly the tensors `expected`."""
    header = adapter_header(path, field)
    image = header.having(".to_q_ref.")
    if image:
        got = f"one that starts from a picture ({path.name})"
        raise InputError(field, EXPECTED, got, REMEDY)
    wrong = next((name for name, shape in header.shapes.items() if expected.get(name, shape) != shape), None)
    if wrong is not None:
        got = f"one for another model: {wrong} is {header.shapes[wrong]}, not {expected[wrong]} ({path.name})"
        raise InputError(field, EXPECTED, got, REMEDY)
    for what, names in {
        "lacks": [name for name in expected if name not in header],
        "also has": [name for name in header if name not in expected],
    }.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(field, EXPECTED, f"a file that {what} {names[0]}{more} ({path.name})", REMEDY)


def adapter_header(path: Path, field: str) -> Header:
    """Of a file that has row attention. Errors: InputError naming `field` for a missing file and for any other."""
    if not path.is_file():
        raise InputError(field, EXPECTED, f"{path}, which does not exist", REMEDY)
    try:
        header = read_header(path)
    except (BrokenFileError, OSError) as error:
        raise InputError(field, EXPECTED, f"{error} ({path.name})", REMEDY) from error
    if not any(name.endswith(MARK) for name in header):
        from ..sdxl.checkpoints import identify_tensors

        raise InputError(field, EXPECTED, f"{identify_tensors(header).value} ({path.name})", REMEDY)
    return header


def save_adapter(adapter: MultiViewAdapter, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a file in the published layout."""
    from safetensors.torch import save_file

    from ...files import write_atomically

    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in adapter.file_tensors().items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))
    path.chmod(0o644)  # safetensors makes files for the owner only


def attention_of(unet: nn.Module) -> dict[str, int]:
    """Channels of every self-attention of diffusers' UNet by its place."""
    ending = ".attn1.to_q.weight"
    return {n.removesuffix(ending): len(p) for n, p in unet.named_parameters() if n.endswith(ending)}
