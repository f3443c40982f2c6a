"""gsply (MIT) at arm's length: imported where it is needed, its kernels one at a time, its arrays as ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..gaussians import Gaussians
from ..rendering.numba_runtime import KERNELS, start_threads

INSTALL = "pip install gsply"


def import_gsply(field: str, what: str) -> Any:
    """The module. Errors: InputError that says what to install."""
    try:
        import gsply
    except Exception as error:  # numba, which it imports, raises several kinds for an unsupported numpy
        raise InputError(
            field, f"the package gsply, which {what} needs", f"none that can be used ({error})", INSTALL
        ) from error
    return gsply


def read(path: Path, field: str, what: str, reader: Callable[[Any], Callable[[Path], Any]]) -> Gaussians:
    """The Gaussians that one of gsply's readers finds, in the file's frame. Errors: InputError."""
    gsply = import_gsply(field, f"reading {what}")
    try:
        with KERNELS:
            start_threads()
            data = reader(gsply)(path)
    except OSError as error:
        raise InputError(field, f"{what} that can be read", f"{path} ({error.strerror})") from error
    except Exception as error:  # several kinds for a broken file
        remedy = "pip install zstandard" if "'zstandard'" in str(error) else ""
        raise InputError(
            field, f"{what} that is complete", f"{path}, which cannot be read ({error})", remedy
        ) from error
    n = len(data.means)

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))

    higher = data.shN
    return Gaussians(
        means=tensor(data.means),
        quats=tensor(data.quats),
        log_scales=tensor(data.scales),
        logit_opacities=tensor(data.opacities).reshape(n),
        sh0=tensor(data.sh0).reshape(n, 1, 3),
        shN=torch.zeros(n, 0, 3) if higher is None or np.size(higher) == 0 else tensor(higher),
    )
