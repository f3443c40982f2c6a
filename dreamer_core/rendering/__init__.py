"""Rendering of Gaussians, differentiable: gsplat on CUDA, a portable numba renderer, a plain torch reference."""

from .backends import available_backends, resolve_backend
from .facade import rasterize, render
from .output import RenderOutput

__all__ = ["RenderOutput", "available_backends", "rasterize", "render", "resolve_backend"]
