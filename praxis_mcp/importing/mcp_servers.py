"""Servers as MCP clients list them in their settings → upstreams of ours.

The forms differ in the names of their keys (`command` and `args`, or one list; `url`, `httpUrl`, `serverUrl`; `env`,
`environment`) and in how they name a variable (``${NAME}``, ``${env:NAME}``, ``{env:NAME}``, ``${input:id}``). All of
them are understood in any file, as nobody knows which client a pasted one is from.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from praxis_mcp.clients.known import CLIENTS
from praxis_mcp.errors import ArgumentError
from praxis_mcp.importing.disclosed import is_plain, is_plain_header, is_secret_name, is_secret_text, variable_of
from praxis_mcp.settings.sections import UpstreamSettings

MOST_SERVERS = 1000
_LONGEST_UPSTREAM_NAME = 32

_REFERENCE = re.compile(
    r"\$\{(?:env:)?(?P<name>[A-Za-z_]\w*)(?::-[^}]*)?\}|\{env:(?P<braced>[A-Za-z_]\w*)\}|\$\{input:(?P<input>[\w.-]+)\}"
)
_WHOLE = re.compile(rf"(?:{_REFERENCE.pattern}|\$(?P<bare>[A-Za-z_]\w*))")
_WORKSPACE = re.compile(r"\$\{(?:workspaceFolder|workspaceRoot|cwd)\}")
_UNKNOWN = re.compile(r"\$\{[^}]*\}")
_BEARER = re.compile(r"bearer\s+(.+)", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)

_URLS = ("url", "httpUrl", "serverUrl")
_INCLUDE = ("includeTools", "enabled_tools", "tools")
_EXCLUDE = ("excludeTools", "disabled_tools", "disabledTools")
_TRANSPORTS = {
    "sse": "sse",
    "http": "http",
    "streamable-http": "http",
    "streamablehttp": "http",
    "streamable_http": "http",
}
_READ = frozenset({
    "command", "args", "env", "environment", "headers", "http_headers", "env_http_headers", "env_vars", "type",
    "transport", "bearer_token_env_var", "tool_timeout_sec", "disabled", "enabled", *_URLS, *_INCLUDE, *_EXCLUDE,
})  # fmt: skip
_MEANINGLESS = frozenset(
    {"name", "title", "description", "source", "icon", "startup_timeout_sec", "$schema", "gallery"}
)
"""Keys that say nothing of how the server is reached."""
_REASONS = {
    "cwd": "upstreams are started in the project's directory",
    "envFile": "set what the file holds in this server's environment",
    "oauth": "write oauth: {client_id, client_secret, issuer} where it has client credentials",
    "timeout": "clients count it in different units; write timeout: with seconds",
    "autoApprove": "what is approved is the client's own to decide",
    "alwaysAllow": "what is approved is the client's own to decide",
    "trust": "what is approved is the client's own to decide",
}


@dataclass(slots=True)
class ImportedServers:
    """What became of the servers of a file.

    Attributes:
        upstreams: by name, as `settings.upstreams` has them, without any secret's value.
        secrets: names of the secrets that they take, each with where its value stood or what it is.
        notes: what was not carried over, or otherwise than it was written, a sentence each.
    """

    upstreams: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def forget_unused(self) -> None:
        """Leave out the secrets that none of the upstreams takes."""
        used = _references_in(list(self.upstreams.values()))
        self.secrets = {name: where for name, where in self.secrets.items() if name in used}

    @property
    def is_whole(self) -> bool:
        """Whether no server was left out."""
        return not any(" is left out: " in note for note in self.notes)


def import_servers(data: Mapping[str, Any]) -> ImportedServers:
    """The servers of a client's settings, or of a part of them, as upstreams.

    Raises:
        ArgumentError: there are no servers in it, or too many.
    """
    servers = _servers_in(data)
    if len(servers) > MOST_SERVERS:
        raise ArgumentError(f"The file has more than {MOST_SERVERS} servers.", remedy="Import a part of it.")
    result = ImportedServers()
    values = _Values(result, _inputs(data))
    names = _names(servers)
    for given, entry in servers.items():
        try:
            upstream = _upstream(names[given], entry, values, result.notes)
            UpstreamSettings.model_validate(upstream)
        except _LeftOutError as exc:
            result.notes.append(f"{given} is left out: {exc}.")
            continue
        except ValidationError as exc:
            # Without the values, which may be secrets.
            why = "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in exc.errors(include_input=False))
            result.notes.append(f"{given} is left out: {why}.")
            continue
        if names[given] != given:
            result.notes.append(f"{given} is named {names[given]}.")
        result.upstreams[names[given]] = upstream
    if isinstance(data.get("projects"), Mapping):
        result.notes.append("Servers of single projects in the file were left out.")
    result.forget_unused()
    return result


class _LeftOutError(ValueError):
    """A server that cannot be an upstream; the message ends a sentence."""


def _servers_in(data: Mapping[str, Any]) -> Mapping[str, Any]:
    sections = [("mcp", "servers"), *dict.fromkeys(client.section for client in CLIENTS.values())]
    for section in sections:
        found: Any = data
        for name in section:
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and found:
            return found
    if _is_server(data):
        command = data.get("command")
        return {PurePath(command).stem if isinstance(command, str) and command else "server": data}
    servers = {name: entry for name, entry in data.items() if isinstance(entry, Mapping) and _is_server(entry)}
    if servers:
        return servers
    raise ArgumentError(
        "There are no MCP servers in it.",
        remedy="Give a file with mcpServers, servers, context_servers, mcp or mcp_servers.",
    )


def _is_server(entry: Mapping[str, Any]) -> bool:
    return any(isinstance(entry.get(key), str | list | Mapping) for key in ("command", *_URLS))


def _names(servers: Mapping[str, Any]) -> dict[str, str]:
    """A name for each upstream that settings can have, of which no prefix begins another one's."""
    names: dict[str, str] = {}
    for given in servers:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", given).strip("-")[:_LONGEST_UPSTREAM_NAME] or "server"
        if any(other != given and f"{name}_".startswith(f"{other}_") for other in servers):
            name = name.replace("_", "-")
        number, base = 2, name
        while name in names.values():
            ending = f"-{number}"
            name, number = base[: _LONGEST_UPSTREAM_NAME - len(ending)] + ending, number + 1
        names[given] = name
    return names


def _inputs(data: Mapping[str, Any]) -> dict[str, str]:
    """What VS Code asks its user for, by id."""
    found: dict[str, str] = {}
    inner = data.get("mcp")
    for holder in (data, inner if isinstance(inner, Mapping) else {}):
        inputs = holder.get("inputs")
        for item in inputs if isinstance(inputs, list) else []:
            if isinstance(item, Mapping) and isinstance(item.get("id"), str):
                found[item["id"]] = str(item.get("description") or item["id"])
    return found


class _Values:
    """Texts that may be secrets, as what stands for them in the settings."""

    def __init__(self, result: ImportedServers, inputs: Mapping[str, str]) -> None:
        self._secrets = result.secrets
        self._inputs = inputs
        self._known: dict[str, str | None] = {}
        """The value that each secret had in clear; None for that of a variable."""

    def of(self, server: str, key: str, value: str, *, plain: bool) -> str | dict[str, str]:
        """The text itself, where it may be written in clear; else the secret that has it."""
        if found := _WHOLE.fullmatch(value):
            return {"secret": self.referred(found)}
        if _REFERENCE.search(value):
            parts = ", ".join(self._name(found) for found in _REFERENCE.finditer(value))
            return {"secret": self._new(server, key, value, f"the text of {key} of {server}, with {parts} filled in")}
        if plain:
            return value
        return {"secret": self._new(server, key, value, f"the value of {key} of {server}")}

    def referred(self, found: re.Match[str]) -> str:
        """The secret that a reference names."""
        prompt = self._inputs.get(found["input"] or "")
        return self._of_variable(self._name(found), f"what the client asks for: {prompt}" if prompt else "")

    def named(self, variable: str) -> dict[str, str]:
        """The secret that a variable of the environment has."""
        return {"secret": self._of_variable(variable)}

    def _of_variable(self, variable: str, where: str = "") -> str:
        # One of this name may have stood in clear for another server.
        name = self._free(variable, None)
        self._secrets.setdefault(name, where or f"the variable {variable}")
        return name

    def _name(self, found: re.Match[str]) -> str:
        groups = found.groupdict()
        if groups.get("input"):
            return variable_of(groups["input"])
        return groups["name"] or groups["braced"] or groups.get("bare") or ""

    def _new(self, server: str, key: str, value: str, where: str) -> str:
        name = variable_of(key)
        if self._known.get(name, value) != value or name in ("AUTHORIZATION", "TOKEN"):
            name = variable_of(server, key)
        name = self._free(name, value)
        self._secrets.setdefault(name, where)
        return name

    def _free(self, base: str, value: str | None) -> str:
        name, number = base, 2
        while self._known.get(name, value) != value:
            name, number = f"{base}_{number}", number + 1
        self._known[name] = value
        return name


def _upstream(name: str, entry: Any, values: _Values, notes: list[str]) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise _LeftOutError("it is not a mapping")
    if entry.get("disabled") is True or entry.get("enabled") is False:
        raise _LeftOutError("it is disabled there")
    kind = str(entry.get("type") or entry.get("transport") or "").lower()
    upstream: dict[str, Any] = {}
    url = next((entry[key] for key in _URLS if entry.get(key)), None)
    if entry.get("command"):
        _by_command(name, entry, values, upstream)
    elif isinstance(url, str):
        if kind and kind not in (*_TRANSPORTS, "remote"):
            raise _LeftOutError("its transport is not known here")
        _at_url(name, entry, url, values, upstream)
        if kind in _TRANSPORTS and (kind == "sse") != url.rstrip("/").endswith("/sse"):
            upstream["transport"] = _TRANSPORTS[kind]
    else:
        raise _LeftOutError("it has neither a command nor a URL")
    for ours, theirs in (("include", _INCLUDE), ("exclude", _EXCLUDE)):
        globs = next((_texts(entry[key], key) for key in theirs if entry.get(key)), None)
        if globs and globs != ["*"]:
            upstream[ours] = globs
    if isinstance(entry.get("tool_timeout_sec"), int | float):
        upstream["timeout"] = entry["tool_timeout_sec"]
    for key in entry:
        if key not in _READ and key not in _MEANINGLESS and entry[key] not in (None, [], {}, "", False):
            reason = f": {_REASONS[key]}" if key in _REASONS else ""
            notes.append(f"{name}: {str(key)[:64]} is not carried over{reason}.")
    return upstream


def _by_command(name: str, entry: Mapping[str, Any], values: _Values, upstream: dict[str, Any]) -> None:
    command, args, env = entry["command"], entry.get("args"), entry.get("env") or entry.get("environment")
    if isinstance(command, Mapping):  # Zed's older form
        command, args, env = command.get("path"), command.get("args"), command.get("env") or env
    words = [*([command] if isinstance(command, str) else _texts(command, "command")), *_texts(args or [], "args")]
    if PurePath(words[0]).stem == "praxis-mcp" or "praxis-mcp" in words[:3]:
        raise _LeftOutError("it is praxis-mcp itself")
    variables: dict[str, Any] = {}
    for key, value in _pairs(env or {}, "env").items():
        variables[key] = values.of(name, key, value, plain=is_plain(key, value))
    for variable in _texts(entry.get("env_vars") or [], "env_vars"):
        variables[variable] = values.named(variable)
    upstream["address"] = _command(name, words, values, variables)
    if variables:
        upstream["env"] = variables


def _command(name: str, words: list[str], values: _Values, variables: dict[str, Any]) -> list[str]:
    """The words of a command. What may be a secret in them, or is filled in by a client, becomes a variable, which a
    shell puts in its place: settings have no secrets in an address."""
    is_filled_in = False
    shown: list[str] = []
    for index, written in enumerate(words):
        word = _WORKSPACE.sub(".", written)
        before = words[index - 1] if index else ""
        option = _OPTION.fullmatch(word)
        head, value, key = (f"{option['name']}=", option["value"], option["name"]) if option else ("", word, "")
        if not option and before.startswith("-") and "=" not in before and not word.startswith("-"):
            key = before
        pieces, end = [shlex.quote(head)] if head else [], 0
        references = list(_REFERENCE.finditer(value))
        for found in references:
            secret = values.referred(found)
            label = secret
            if variables.setdefault(label, {"secret": secret}) != {"secret": secret}:
                label = variable_of(name, secret, "argument")
                variables[label] = {"secret": secret}
            pieces += [shlex.quote(value[end : found.start()]) if found.start() > end else "", f'"${label}"']
            end = found.end()
        rest = value[end:]
        if _UNKNOWN.search(rest):
            raise _LeftOutError("its command has a placeholder that only its client fills in")
        if not references and index and (is_secret_text(value) or (value and _is_secret_option(key))):
            label = variable_of(name, key.strip("-") or f"argument {index}")
            found_value = values.of(name, label, value, plain=False)
            assert isinstance(found_value, dict)
            variables[label] = found_value
            pieces.append(f'"${label}"')
            is_filled_in = True
        elif rest or not pieces:
            pieces.append(shlex.quote(rest))
        is_filled_in = is_filled_in or bool(references)
        shown.append("".join(pieces))
    return ["sh", "-c", f"exec {' '.join(shown)}"] if is_filled_in else [_WORKSPACE.sub(".", word) for word in words]


def _is_secret_option(key: str) -> bool:
    return bool(key) and is_secret_name(key.strip("-")) and not key.endswith(("-file", "-path", "-env", "_FILE"))


def _at_url(name: str, entry: Mapping[str, Any], url: str, values: _Values, upstream: dict[str, Any]) -> None:
    if _REFERENCE.search(url) or _UNKNOWN.search(url):
        raise _LeftOutError("its URL has a placeholder; write the address itself")
    if is_secret_text(url):
        raise _LeftOutError("its URL holds what looks like a secret, for which an address has no place; use a header")
    upstream["address"] = url
    headers: dict[str, Any] = {}
    for key, value in _pairs(entry.get("headers") or entry.get("http_headers") or {}, "headers").items():
        bearer = _BEARER.fullmatch(value)
        if key.lower() == "authorization" and bearer:
            upstream["auth_token"] = values.of(name, variable_of(name, "token"), bearer[1], plain=False)
        else:
            headers[key] = values.of(name, variable_of(name, key), value, plain=is_plain_header(key, value))
    for key, variable in _pairs(entry.get("env_http_headers") or {}, "env_http_headers").items():
        headers[key] = values.named(variable)
    if isinstance(entry.get("bearer_token_env_var"), str):
        upstream["auth_token"] = values.named(entry["bearer_token_env_var"])
    if headers:
        upstream["headers"] = headers


def _texts(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str | int | float) for item in value):
        raise _LeftOutError(f"its {key} is not a list of texts")
    return [_text(item) for item in value]


def _pairs(value: Any, key: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(item, str | int | float) for item in value.values()):
        raise _LeftOutError(f"its {key} is not a mapping of texts")
    return {str(name): _text(item) for name, item in value.items()}


def _text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _references_in(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {value["secret"]} if set(value) == {"secret"} else _references_in(list(value.values()))
    return set().union(*map(_references_in, value)) if isinstance(value, list) else set()
