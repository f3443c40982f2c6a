"""Earlier name of `dreamer_core.teachers.sdxl.tiny_sdxl`."""

from ..teachers.sdxl.tiny_sdxl import save_tiny_sdxl, save_tiny_single_file, tiny_single_file_tensors

__all__ = ["save_tiny_sdxl", "save_tiny_single_file", "tiny_single_file_tensors"]
