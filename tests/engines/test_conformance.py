"""The conformance suite that `praxis_mcp.testing` ships, over every engine that cases.py lists."""

from praxis_mcp.testing.conformance import *  # noqa: F403 - pytest collects them here
