"""The starter checkpoint: a procedural world, a miniature SDXL trained on it, a LoRA and an independent judge."""
