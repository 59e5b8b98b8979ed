"""The settings of MCP clients: where each keeps its servers, in which form, and edits that change nothing else."""
