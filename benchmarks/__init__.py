"""How fast praxis-mcp is, always beside the bare alternative in the same run: ``python -m benchmarks --help``."""
