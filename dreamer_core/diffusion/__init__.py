"""Earlier names of `dreamer_core.teachers`, for scripts that were written with them; our own code uses the new ones."""
