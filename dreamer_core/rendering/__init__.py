"""Differentiable rendering of Gaussians: gsplat on CUDA, numba kernels anywhere, plain torch as the reference."""

from .backends import RENDERER_NAMES, RENDERERS, available_backends, resolve_backend
from .facade import rasterize, render
from .output import RenderOutput
from .renderer import RasterizeCall, Renderer

__all__ = [
    "RENDERERS",
    "RENDERER_NAMES",
    "RasterizeCall",
    "RenderOutput",
    "Renderer",
    "available_backends",
    "rasterize",
    "render",
    "resolve_backend",
]
