"""``python -m praxis_mcp.cli``: the same as ``praxis-mcp``."""

from praxis_mcp.cli import main

main()
