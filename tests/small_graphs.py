"""Values with which the example workflows run in seconds."""

SMALL = {
    "DreamerXLOptimize": {"steps": 2, "views": 1, "resolution": 64, "final_views": 2},
    "DreamerXLTeacherPreview": {"steps": 2, "views": 1, "resolution": 64, "sampling_steps": 2},
    "DreamerXLEdit": {"steps": 2, "views": 1, "resolution": 64, "final_views": 2},
    "DreamerXLRestyle": {"steps": 2, "views": 1, "resolution": 64, "final_views": 2},
    "DreamerXLInitialize": {"source.count": 300, "source.opacity": 0.9, "source.fit_steps": 2},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
    "DreamerXLRender": {"path.frames": 2, "resolution": 64},
    "DreamerXLMesh": {"triangles": 500, "texture": 64, "cells": 32, "views": 8, "resolution": 64},
    "DreamerXLBakeTexture": {"texture": 64, "views": 8, "resolution": 64},
    "DecimateMesh": {"target_face_count": 300},
    "UnwrapMesh": {"resolution": 64},
    "BakeNormalMapFromMesh": {"resolution": 64},
    "BakeAmbientOcclusion": {"resolution": 64, "samples": 4},
}
"""Widget -> value, by the node's type."""
