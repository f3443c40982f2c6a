"""Speed and memory, one command each; see docs/performance.md."""
