"""Earlier name of `dreamer_core.teachers.sdxl.loading`."""

from ..teachers.sdxl.loading import load_sdxl

__all__ = ["load_sdxl"]
