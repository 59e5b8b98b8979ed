"""``python -m praxis_mcp``: the same as ``praxis-mcp``."""

from praxis_mcp.cli import main

main()
