"""The list of our nodes, as ComfyUI asks for it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .bake_texture import DreamerXLBakeTexture
from .cameras import DreamerXLCameras
from .change import DreamerXLEdit, DreamerXLRestyle
from .cleanup import DreamerXLCleanup
from .density import DreamerXLDensityControl
from .evaluate import DreamerXLEvaluate
from .export import DreamerXLExport
from .guidance import DreamerXLGradientClip, DreamerXLTSMGuidance
from .host.snapshots import add_routes
from .host.starter import offer_loras
from .host.store import remove_leftovers
from .initialize import DreamerXLInitialize
from .loader import DreamerXLLoader
from .mesh import DreamerXLMesh
from .multiview import DreamerXLMultiView
from .optimize import DreamerXLOptimize
from .preview import DreamerXLPreview
from .prompt import DreamerXLPrompt, DreamerXLPromptFromConditioning
from .region import DreamerXLRegion
from .regularizers import DreamerXLRegularizers
from .renames import offer_replacements
from .teacher_preview import DreamerXLTeacherPreview
from .view import DreamerXLRender


class DreamerXLExtension(ComfyExtension):
    """Dreamer XL's nodes."""

    async def on_load(self) -> None:
        await offer_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            DreamerXLLoader,
            DreamerXLMultiView,
            DreamerXLPrompt,
            DreamerXLPromptFromConditioning,
            DreamerXLInitialize,
            DreamerXLCameras,
            DreamerXLTSMGuidance,
            DreamerXLGradientClip,
            DreamerXLDensityControl,
            DreamerXLRegularizers,
            DreamerXLTeacherPreview,
            DreamerXLOptimize,
            DreamerXLRestyle,
            DreamerXLEdit,
            DreamerXLRegion,
            DreamerXLCleanup,
            DreamerXLRender,
            DreamerXLPreview,
            DreamerXLMesh,
            DreamerXLBakeTexture,
            DreamerXLExport,
            DreamerXLEvaluate,
        ]


async def comfy_entrypoint() -> DreamerXLExtension:
    """Called once by ComfyUI, before its server takes requests."""
    from server import PromptServer

    offer_loras()
    remove_leftovers()
    if getattr(PromptServer, "instance", None) is not None:
        add_routes(PromptServer.instance)
    return DreamerXLExtension()
