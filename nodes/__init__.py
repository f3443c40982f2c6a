"""The node pack: schemas and adapters. The mathematics stays in `dreamer_core`."""
