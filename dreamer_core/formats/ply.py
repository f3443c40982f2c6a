"""The standard 3DGS PLY: means, unactivated opacities and scales, wxyz quaternions, SH.

Files are in the frame that 3DGS trainers, viewers and ComfyUI use (X right, Y down, Z forward), `Gaussians` in our
world; `dreamer_core.frames` lies between them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..files import write_atomically
from ..frames import flip_frame
from ..gaussians import Gaussians

_REQUIRED = (
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


def write_ply(gaussians: Gaussians, path: Path) -> None:
    """Write all Gaussians of our world as a binary PLY, atomically (gsplat's exporter).

    Errors: ValueError where a parameter holds NaN or inf.
    """
    from gsplat.exporter import export_splats

    bad = gaussians.check_finite()
    if bad is not None:
        raise ValueError(f"write_ply: expected finite Gaussians, but {bad} holds NaN or inf")
    g = flip_frame(gaussians.detach().to("cpu"))
    data = export_splats(g.means, g.log_scales, g.quats, g.logit_opacities, g.sh0, g.shN, format="ply")

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def read_ply(path: Path, field: str = "FILE") -> Gaussians:
    """The Gaussians of a 3DGS PLY, in our world. `field` names the option in errors.

    Errors: InputError for a missing or truncated file, another format, or a PLY without Gaussian attributes.
    """
    from trimesh.exchange.ply import load_ply

    if path.is_dir():
        raise InputError(field, "a .ply file", f"{path}, which is a folder")
    if not path.is_file():
        raise InputError(field, "a .ply file", f"{path}, which does not exist")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(field, "a .ply file that can be read", f"{path} ({error.strerror})") from error
    with file:
        if file.read(3) != b"ply":
            raise InputError(field, "a .ply file", f"{path}, which does not begin with 'ply'")
        file.seek(0)
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
    higher = columns(rest).reshape(n, 3, -1).transpose(1, 2).contiguous() if rest else torch.zeros(n, 0, 3)
    gaussians = Gaussians(
        means=columns(["x", "y", "z"]),
        quats=columns([f"rot_{i}" for i in range(4)]),
        log_scales=columns([f"scale_{i}" for i in range(3)]),
        logit_opacities=torch.from_numpy(rows["opacity"].copy()),
        sh0=columns([f"f_dc_{i}" for i in range(3)])[:, None],
        shN=higher,
    )
    if n == 0:
        raise InputError(field, "at least one Gaussian", f"{path} with none")
    bad = gaussians.check_finite()
    if bad is not None:
        raise InputError(field, "finite numbers", f"{path} with NaN or inf in {bad}")
    flipped = flip_frame(gaussians)
    return replace(flipped, quats=-flipped.quats)  # what was written comes back to the last bit
