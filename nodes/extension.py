"""The list of our nodes, as ComfyUI asks for it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .cameras import DreamerXLCameras
from .export import DreamerXLExport
from .guidance import DreamerXLDensityControl, DreamerXLGradientClip, DreamerXLTSMGuidance
from .initialize import DreamerXLInitialize
from .loader import DreamerXLLoader
from .optimize import DreamerXLOptimize
from .prompt import DreamerXLPrompt, DreamerXLPromptFromConditioning
from .view import DreamerXLRender


class DreamerXLExtension(ComfyExtension):
    """Dreamer XL's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            DreamerXLLoader,
            DreamerXLPrompt,
            DreamerXLPromptFromConditioning,
            DreamerXLInitialize,
            DreamerXLCameras,
            DreamerXLTSMGuidance,
            DreamerXLGradientClip,
            DreamerXLDensityControl,
            DreamerXLOptimize,
            DreamerXLRender,
            DreamerXLExport,
        ]


async def comfy_entrypoint() -> DreamerXLExtension:
    """Called once by ComfyUI."""
    return DreamerXLExtension()
