"""Differentiable rendering of Gaussians: gsplat on CUDA, numba kernels anywhere, plain torch as the reference."""

from .backends import available_backends, resolve_backend
from .facade import rasterize, render
from .output import RenderOutput

__all__ = ["RenderOutput", "available_backends", "rasterize", "render", "resolve_backend"]
