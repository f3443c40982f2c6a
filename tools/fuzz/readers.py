"""The readers of files that come from elsewhere, each as a function of bytes that may only refuse them by name."""

from __future__ import annotations

import gzip
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from dreamer_core.batch.work_list import read_work_list
from dreamer_core.cli.run_folder import RunFolder
from dreamer_core.errors import InputError
from dreamer_core.formats import load_gaussians
from dreamer_core.formats.splat_files import read_metadata
from dreamer_core.initializers.model_files import read_points
from dreamer_core.optimize import LearningRates
from dreamer_core.teachers.multiview.files import adapter_header, load_adapter
from dreamer_core.teachers.safetensors_header import BrokenFileError
from dreamer_core.teachers.sdxl.checkpoints import identify
from dreamer_core.teachers.sdxl.loras import check_lora, read_lora

POINTS = 16
"""Points that are drawn on a mesh."""
ATTENTION, BLOCKS = {"down_blocks.0": 1}, (1,)
"""Of the smallest UNet that an adapter fits."""


def _splat(path: Path) -> None:
    read_metadata(path)
    load_gaussians(path)


def _model(path: Path) -> None:
    read_points(path, POINTS, torch.Generator().manual_seed(0))


def _state(path: Path) -> None:
    folder = RunFolder(path.parent)
    folder.metadata()
    folder.load(LearningRates(), torch.device("cpu"))


def _metrics(path: Path) -> None:
    RunFolder(path.parent).read_metrics(1 << 30)


def _lora(path: Path) -> None:
    check_lora(path)
    read_lora(path)


def _checkpoint(path: Path) -> None:
    identify(path)


def _adapter(path: Path) -> None:
    adapter_header(path, "--multiview")


def _whole_adapter(path: Path) -> None:
    load_adapter(path, ATTENTION, BLOCKS)


def _mtl(path: Path) -> None:
    """The materials of a triangle that uses the first two by their usual names."""
    shape = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 3/3 2/2 1/1\n"
    path.with_suffix(".obj").write_text(f"mtllib {path.name}\n{shape}")
    _model(path.with_suffix(".obj"))


def _work_list(path: Path) -> None:
    read_work_list(path)


READERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ply": ("a.ply", _splat),
    "compressed_ply": ("a.compressed.ply", _splat),
    "splat": ("a.splat", _splat),
    "spz": ("a.spz", _splat),
    "spz_body": ("a.spz", _splat),
    "obj": ("a.obj", _model),
    "mtl": ("a.mtl", _mtl),
    "glb": ("a.glb", _model),
    "gltf": ("a.gltf", _model),
    "stl": ("a.stl", _model),
    "off": ("a.off", _model),
    "points": ("a.ply", _model),
    "state": ("state.safetensors", _state),
    "metrics": ("metrics.csv", _metrics),
    "lora": ("a.safetensors", _lora),
    "checkpoint": ("a.safetensors", _checkpoint),
    "adapter": ("a.safetensors", _adapter),
    "state_tensors": ("state.safetensors", _state),
    "lora_tensors": ("a.safetensors", _lora),
    "checkpoint_tensors": ("a.safetensors", _checkpoint),
    "adapter_tensors": ("a.safetensors", _whole_adapter),
    "work_list": ("list.jsonl", _work_list),
    "work_list_csv": ("list.csv", _work_list),
}
"""By name: what the file is called, and what reads it."""
TENSORS = 1 << 14
"""Numbers in a tensor at most."""


def packed_tensors(lines: bytes) -> bytes:
    """A whole safetensors file of lines `NAME DTYPE SIDES VALUE` and, of its metadata, `=KEY VALUE`."""
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for line in lines.decode("latin-1").splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("="):
            metadata[name[1:]] = rest
            continue
        dtype, sides, value = (*rest.split(" "), "", "", "")[:3]
        shape = [int(side) % 2000 for side in sides.split(",") if side.isascii() and side.isdigit()]
        if math.prod(shape) <= TENSORS:
            tensors[name] = torch.full(shape, _number(value), dtype=torch.float64).to(DTYPES.get(dtype, torch.float32))
    return save(tensors, metadata)


DTYPES = {"I64": torch.int64, "BF16": torch.bfloat16, "F8": torch.float8_e4m3fn, "BOOL": torch.bool, "U8": torch.uint8}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "spz_body": lambda data: gzip.compress(data, 1),
    **dict.fromkeys(("state_tensors", "lora_tensors", "checkpoint_tensors", "adapter_tensors"), packed_tensors),
}
"""What is made of the bytes first: changes behind a checksum, or in offsets that must agree, would all end there."""
REFUSED = (InputError, BrokenFileError)
"""How a reader may end; callers of the header's reader turn its error into the other one."""


def feed(name: str, data: bytes) -> bool:
    """Let a reader have the bytes as a file; whether it took them. Anything but a refusal by name is raised."""
    file, read = READERS[name]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        path = Path(folder) / file
        path.write_bytes(PACKED.get(name, bytes)(data))
        try:
            read(path)
        except REFUSED:
            return False
    return True


def quiet() -> None:
    """Lines about what is left out are no news here."""
    logging.disable(logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
