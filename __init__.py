"""Dreamer XL for ComfyUI: text to 3D Gaussian splats. ComfyUI imports this file and calls `comfy_entrypoint`."""

from .nodes.extension import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
