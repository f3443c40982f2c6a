"""Coverage-guided fuzzing of everything that reads files of others: `python -m tools.fuzz ply --seconds 600`."""
