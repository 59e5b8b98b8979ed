"""``praxis-mcp serve``."""

from __future__ import annotations

from praxis_mcp.cli.common import ConfigOption, DirectoriesArgument, LogLevelOption, friendly_errors, read_settings


def serve(
    directories: DirectoriesArgument = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Serve the tools over MCP on stdin and stdout, for an IDE or an agent that starts this command."""
    from praxis_mcp.serving.wire import take_wire

    # Before anything is imported or read that might print: whatever reaches the wire beside messages breaks the client.
    with take_wire() as wire, friendly_errors():
        settings = read_settings(config, directories, log_level, quiet=False)

        import anyio

        from praxis_mcp.execution.toolbox import open_toolbox
        from praxis_mcp.serving.transports import serve_stdio

        async def main() -> None:
            async with open_toolbox(settings) as toolbox:
                await serve_stdio(toolbox, wire)

        anyio.run(main)
