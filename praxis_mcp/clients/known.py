"""The clients that are known, with where and how each keeps its servers, as its own documentation or program has it:

- Claude Code: code.claude.com/docs/en/mcp; ``claude mcp add-json`` writes the same, and ``CLAUDE_CONFIG_DIR`` moves it.
- Claude Desktop: modelcontextprotocol.io/docs/develop/connect-local-servers; servers at a URL are connectors, which
  are not in the file.
- Cursor: cursor.com/docs/mcp, with its "config interpolation".
- VS Code: code.visualstudio.com/docs/copilot/reference/mcp-configuration, and its variables reference for ``${env:…}``.
- Codex: developers.openai.com/codex/mcp; ``codex mcp add`` writes the same, and ``CODEX_HOME`` moves it.
- Gemini CLI: github.com/google-gemini/gemini-cli, docs/tools/mcp-server.md and docs/cli/configuration.md (variables);
  ``gemini mcp add`` writes the same, and ``GEMINI_CLI_HOME`` moves it.
- Windsurf: docs.windsurf.com/windsurf/cascade/mcp.
- Zed: zed.dev/docs/ai/mcp, and crates/paths of github.com/zed-industries/zed; it reads no variables in headers.
- opencode: opencode.ai/docs/mcp-servers and opencode.ai/docs/config.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from praxis_mcp.clients.model import Client, Machine, Server


def _command(server: Server) -> dict[str, Any]:
    return {"command": server.command[0], "args": list(server.command[1:])}


def _typed_command(server: Server) -> dict[str, Any]:
    return {"type": "stdio", **_command(server)}


def _at(key: str, **more: str) -> Any:
    def remote(server: Server, authorization: str) -> dict[str, Any]:
        headers = {"headers": {"Authorization": authorization}} if authorization else {}
        return {**more, key: server.url, **headers}

    return remote


def _codex_remote(server: Server, authorization: str) -> dict[str, Any]:
    if server.token_variable and not server.token:
        return {"url": server.url, "bearer_token_env_var": server.token_variable}
    return {"url": server.url, **({"http_headers": {"Authorization": authorization}} if authorization else {})}


def _opencode_command(server: Server) -> dict[str, Any]:
    return {"type": "local", "command": list(server.command)}


def _opencode_file(machine: Machine) -> Path:
    directory = machine.xdg_config() / "opencode"
    commented = directory / "opencode.jsonc"
    return commented if os.path.lexists(commented) else directory / "opencode.json"


def _zed_file(machine: Machine) -> Path:
    if machine.platform == "win32":
        return machine.application_data() / "Zed" / "settings.json"
    base = machine.home / ".config" if machine.platform == "darwin" else machine.xdg_config()
    return base / "zed" / "settings.json"


_SERVERS = ("mcpServers",)

CLIENTS = {
    client.name: client
    for client in (
        Client(
            "claude-code", "Claude Code", _SERVERS,
            lambda machine: machine.directory("CLAUDE_CONFIG_DIR", "") / ".claude.json",
            _typed_command, _at("url", type="http"), ".mcp.json", "${{{}}}",
            restart="Start it again, and approve the server where it asks",
        ),
        Client(
            "claude-desktop", "Claude Desktop", _SERVERS,
            lambda machine: machine.application_data() / "Claude" / "claude_desktop_config.json",
            _command, None,
        ),
        Client(
            "cursor", "Cursor", _SERVERS,
            lambda machine: machine.home / ".cursor" / "mcp.json",
            _command, _at("url"), ".cursor/mcp.json", "${{env:{}}}",
        ),
        Client(
            "vscode", "VS Code", ("servers",),
            lambda machine: machine.application_data() / "Code" / "User" / "mcp.json",
            _typed_command, _at("url", type="http"), ".vscode/mcp.json", "${{env:{}}}",
            restart="Start the server there: MCP: List Servers",
        ),
        Client(
            "codex", "Codex", ("mcp_servers",),
            lambda machine: machine.directory("CODEX_HOME", ".codex") / "config.toml",
            _command, _codex_remote, ".codex/config.toml", "{}", "toml",
        ),
        Client(
            "gemini-cli", "Gemini CLI", _SERVERS,
            lambda machine: machine.directory("GEMINI_CLI_HOME", "") / ".gemini" / "settings.json",
            _command, _at("httpUrl"), ".gemini/settings.json", "${{{}}}",
        ),
        Client(
            "windsurf", "Windsurf", _SERVERS,
            lambda machine: machine.home / ".codeium" / "windsurf" / "mcp_config.json",
            _command, _at("serverUrl"), "", "${{env:{}}}",
        ),
        Client(
            "zed", "Zed", ("context_servers",), _zed_file,
            _command, _at("url"), ".zed/settings.json",
            restart="It takes the server up by itself",
        ),
        Client(
            "opencode", "opencode", ("mcp",), _opencode_file,
            _opencode_command, _at("url", type="remote"), "opencode.json", "{{env:{}}}",
        ),
    )
}  # fmt: skip
"""Every client, by name."""
