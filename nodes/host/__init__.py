"""Adapters between ComfyUI's types and the core's protocols."""
