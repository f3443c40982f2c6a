"""The packages of the extra `mesh`, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import InputError

PACKAGES = {"skimage": "scikit-image", "manifold3d": "manifold3d", "xatlas": "xatlas", "trimesh": "trimesh"}
"""Module -> what pip calls it."""


def require_packages(field: str) -> None:
    """Errors: InputError that names what is missing and how to install it."""
    missing = []
    for module, package in PACKAGES.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation raises several kinds
            missing.append(package if isinstance(error, ImportError) else f"{package} ({error})")
    if missing:
        names = " ".join(PACKAGES.values())
        install = f"install them: python -m pip install {names} (in ComfyUI, with ComfyUI's own Python)"
        expected = f"the packages that meshes need ({', '.join(PACKAGES.values())})"
        raise InputError(field, expected, f"no {', '.join(missing)}", install)


def package(module: str) -> Any:
    """An optional package's module; `require_packages` has said what is wrong where it is missing."""
    return importlib.import_module(module)
