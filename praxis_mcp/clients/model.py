"""What a client gets to know of a server, what is known of clients, and of the machine that they are on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from praxis_mcp.errors import SettingsError
from praxis_mcp.support.files import home


@dataclass(frozen=True, slots=True)
class Server:
    """A server as clients find it: by a command that they start, or at a URL.

    Attributes:
        command: its words, the first one absolute; empty for one at a URL.
        url: of its MCP endpoint.
        token_variable: the variable of the client's environment that holds the bearer token; empty for none.
        token: the token itself, for clients that read no variables, where its owner wants it in a file.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    token_variable: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a user's files are.

    Attributes:
        platform: as `sys.platform`.
        home: the user's home directory.
        variables: of the environment.
    """

    platform: str
    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def this() -> Machine:
        """This one.

        Raises:
            SettingsError: the user has no home directory.
        """
        where = home()
        if where is None:
            raise SettingsError(
                "This user has no home directory, where clients keep their settings.", remedy="Set HOME."
            )
        return Machine(sys.platform, where, os.environ)

    def directory(self, variable: str, default: str | Path) -> Path:
        """The directory that a variable names, if it is absolute; else the default, from the home directory."""
        named = Path(self.variables.get(variable, ""))
        return named if named.is_absolute() else self.home / default

    def xdg_config(self) -> Path:
        """XDG Base Directory Specification."""
        return self.directory("XDG_CONFIG_HOME", ".config")

    def application_data(self) -> Path:
        """Where programs with windows keep their settings: Electron's ``appData``."""
        if self.platform == "win32":
            return self.directory("APPDATA", Path("AppData", "Roaming"))
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        return self.xdg_config()


@dataclass(frozen=True, slots=True)
class Client:
    """One MCP client.

    Attributes:
        name: on the command line.
        title: for people.
        section: the names of the objects that hold its servers.
        file: of the user's own settings.
        entry: what stands there for a server that it starts.
        remote: what stands there for a server at a URL, with the value of the header Authorization; None for a client
            whose file has no such servers.
        project_file: from a project's directory; empty where it has none.
        reference: how its file names a variable of the environment; empty where it cannot.
        form: of its files.
        restart: what makes it read them again.
    """

    name: str
    title: str
    section: tuple[str, ...]
    file: Callable[[Machine], Path]
    entry: Callable[[Server], dict[str, Any]]
    remote: Callable[[Server, str], dict[str, Any]] | None
    project_file: str = ""
    reference: str = ""
    form: Literal["json", "toml"] = "json"
    restart: str = "Restart it"

    def written(self, server: Server) -> dict[str, Any]:
        """What stands in its file for a server.

        Raises:
            SettingsError: it cannot have that server.
        """
        if server.command:
            return self.entry(server)
        if self.remote is None:
            raise SettingsError(
                f"{self.title} takes no servers at a URL in its file.",
                remedy="Leave --url out, so that it starts the server itself, or add the URL in its own settings.",
            )
        if server.token:
            return self.remote(server, f"Bearer {server.token}")
        if not server.token_variable:
            return self.remote(server, "")
        if not self.reference:
            raise SettingsError(
                f"{self.title} does not expand variables in its settings, so the token itself would be in the file.",
                remedy="Add --write-token to write it in clear text, for everybody who can read the file.",
            )
        return self.remote(server, f"Bearer {self.reference.format(server.token_variable)}")


_HEADERS = frozenset({"headers", "http_headers", "env_http_headers"})
_LOCAL = frozenset({"type", "command", "args", "env", "environment", "env_vars", "cwd"})
_ADDRESSES = frozenset({"url", "httpUrl", "serverUrl"})
_REMOTE = _ADDRESSES | {"type", "bearer_token_env_var"}
_AUTHORIZED = _HEADERS | {"bearer_token_env_var"}


def merged(existing: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what we write in place of what it said of the server; the rest (``env``, ``disabled``, approvals,
    headers) is its user's, and stays where a server of that kind has it: Codex does not even start with an ``env`` for
    a server at a URL. Authorization stays for the same address only, and gives way to ours.

    Args:
        existing: the entry as it is.
        ours: see `Client.written`.
    """
    gone = _REMOTE | _HEADERS if "command" in ours else _LOCAL | _REMOTE
    entry = {key: value for key, value in existing.items() if key not in gone or key in ours}
    is_there = any(key in ours and existing.get(key) == ours[key] for key in _ADDRESSES)
    if not is_there or ours.keys() & _AUTHORIZED:
        for key in entry.keys() & _HEADERS:
            entry[key] = _without_authorization(entry[key], ours.get(key, {}))
    for key, value in ours.items():
        before = entry.get(key)
        entry[key] = {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return entry


def _without_authorization(headers: Any, ours: Mapping[str, Any]) -> Any:
    if not isinstance(headers, Mapping):
        return headers
    return {name: value for name, value in headers.items() if name in ours or name.lower() != "authorization"}
