pytest_plugins = ["praxis_mcp.testing.plugin"]
