"""How fast praxis-mcp is, always next to the bare alternative in the same run: ``python -m benchmarks --help``."""
