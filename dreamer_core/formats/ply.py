"""The standard 3DGS PLY: means, unactivated opacities and scales, wxyz quaternions, SH.

Files are in the frame that 3DGS trainers, viewers and ComfyUI use (X right, Y down, Z forward), `Gaussians` in our
world; `dreamer_core.frames` lies between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import write_atomically
from ..gaussians import Gaussians
from .compressed_ply import is_compressed, read_compressed_ply
from .file_frame import check_file, to_file_frame, to_world
from .format import Format
from .ply_header import property_names, read_comments, with_comments

_REQUIRED = (
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


def write_ply(
    gaussians: Gaussians, path: Path, metadata: Mapping[str, Any] | None = None, field: str = "splat"
) -> None:
    """Write all Gaussians of our world as a binary PLY, atomically (gsplat's exporter); metadata as comments.

    Errors: InputError for no Gaussians, NaN or inf.
    """
    from gsplat.exporter import export_splats

    g = to_file_frame(gaussians, field)
    data = export_splats(g.means, g.log_scales, g.quats, g.logit_opacities, g.sh0, g.shN, format="ply")
    data = with_comments(data, metadata or {})

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def read_ply(path: Path, field: str = "FILE") -> Gaussians:
    """The Gaussians of a 3DGS PLY, compressed or not, in our world. `field` names the option in errors.

    Errors: InputError for a missing or truncated file, another format, or a PLY without Gaussian attributes.
    """
    from trimesh.exchange.ply import load_ply

    check_file(path, field, "a .ply file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(field, "a .ply file that can be read", f"{path} ({error.strerror})") from error
    with file:
        if file.read(3) != b"ply":
            raise InputError(field, "a .ply file", f"{path}, which does not begin with 'ply'")
        file.seek(0)
        if is_compressed(path):
            return to_world(read_compressed_ply(path, field), path, field)
        try:
            elements = load_ply(file)["metadata"]["_ply_raw"]
            vertices = elements["vertex"]["data"]
            names = vertices if isinstance(vertices, dict) else vertices.dtype.names  # ASCII files give a dict
            rows = {name: np.asarray(vertices[name], dtype=np.float32).reshape(-1) for name in names}
        except Exception as error:  # the parser raises many kinds for a broken file
            raise InputError(field, "a complete PLY file", f"{path}, which cannot be read ({error})") from error
    missing = [name for name in _REQUIRED if name not in rows]
    if missing:
        raise InputError(
            field,
            "a PLY with 3D Gaussian attributes",
            f"{path} without {', '.join(missing)} (it has {', '.join(rows) or 'no vertices'})",
            "export it as a Gaussian splat (3DGS) PLY",
        )
    rest = [f"f_rest_{i}" for i in range(sum(name.startswith("f_rest_") for name in rows))]
    if len(rest) not in (0, 9, 24, 45) or any(name not in rows for name in rest):
        raise InputError(field, "0, 9, 24 or 45 f_rest attributes", f"{path} with {len(rest)}")

    def columns(names: list[str]) -> torch.Tensor:
        return torch.from_numpy(np.stack([rows[name] for name in names], axis=-1))

    n = len(rows["x"])
    higher = columns(rest).reshape(n, 3, len(rest) // 3).transpose(1, 2).contiguous() if rest else torch.zeros(n, 0, 3)
    gaussians = Gaussians(
        means=columns(["x", "y", "z"]),
        quats=columns([f"rot_{i}" for i in range(4)]),
        log_scales=columns([f"scale_{i}" for i in range(3)]),
        logit_opacities=torch.from_numpy(rows["opacity"].copy()),
        sh0=columns([f"f_dc_{i}" for i in range(3)])[:, None],
        shN=higher,
    )
    return to_world(gaussians, path, field)


def holds_gaussians(path: Path) -> bool:
    """Whether a PLY's header declares attributes of Gaussians rather than of points or a mesh."""
    return bool(property_names(path) & {b"f_dc_0", b"scale_0", b"rot_0"})


PLY = Format(
    ".ply",
    "PLY, 3DGS",
    "the standard 3DGS file, exact, opens everywhere",
    read=read_ply,
    write=write_ply,
    recognise=holds_gaussians,
    metadata=read_comments,
)
