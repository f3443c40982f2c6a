"""SDXL by diffusers: checkpoints, LoRAs, prompts, and the networks as a `Teacher`."""
