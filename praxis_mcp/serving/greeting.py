"""The answer to a client's first message over stdio, given before the MCP SDK is imported.

More than half of what a server takes to start is that import, and a client can do nothing before its ``initialize``
(or ``server/discover``, since 2026-07-28) is answered. What the answer says depends on the settings alone, so it is
given as soon as they are read, where the message is there by then and is as plain as clients send it. The message then
goes to the SDK all the same, whose own answer is left out (`stdio_streams`): ``tests/serving/test_greeting.py``
compares both.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from praxis_mcp.serving.wire import Wire, tells_readiness
from praxis_mcp.support.installation import usable_plugins

if TYPE_CHECKING:
    from praxis_mcp.settings.model import Settings

_INSTRUCTIONS = (
    "Long output is shown as its head and tail; the whole is a resource, praxis://runs/{run_id}/stdout, that can be "
    "read in parts with ?offset=…&limit=…. A failed call says why and what to change."
)
DISCOVERY_KEPT = 60_000
"""Milliseconds for which clients may keep the answer to ``server/discover``."""
HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
TASKS = "io.modelcontextprotocol/tasks"
"""The extension by which calls are answered with tasks (SEP-2663); clients of older revisions know none."""
CAPABILITIES = {"resources": {"listChanged": False, "subscribe": False}, "tools": {"listChanged": True}}
_REQUIRED_INFO = {"name", "version"}
_TEXTS = _REQUIRED_INFO | {"description", "title", "websiteUrl"}
_META = "io.modelcontextprotocol/"
_MOST_READ = 64 * 1024
_MOST_EXACT_NUMBER = 2**53  # what every reader of JSON knows exactly


def greet(wire: Wire, settings: Settings) -> Wire:
    """Answer the first message if it has come, and is one that can be answered; never waits.

    Returns:
        the wire, with what was read of it and whether that has been answered.
    """
    if not tells_readiness(wire.stdin) or not _is_ready(wire.stdin, select.POLLIN):
        return wire
    try:
        data = os.read(wire.stdin, _MOST_READ)
    except OSError:
        return wire
    line, newline, _ = data.partition(b"\n")
    answer = answer_to(line, settings) if newline else None
    if answer is None or not tells_readiness(wire.stdout) or not _is_ready(wire.stdout, select.POLLOUT):
        return replace(wire, read=data)
    text = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
    if len(text) > select.PIPE_BUF:  # more than surely fits
        return replace(wire, read=data)
    try:
        os.write(wire.stdout, text)
    except OSError:
        return replace(wire, read=data)
    return replace(wire, read=data, answered=answer["id"])


def identity_of(settings: Settings, toolsets: Collection[str]) -> tuple[dict[str, str], str]:
    """What the server says of itself to clients of some toolsets: its name and version, and its title where there is
    one; and its instructions. A toolset that is served alone may have its own."""
    alone = settings.toolsets[next(iter(toolsets))] if len(toolsets) == 1 else None
    own = {"name": (alone.name if alone else None) or settings.server.name, "version": version("praxis-mcp")}
    if alone is not None and alone.title:
        own["title"] = alone.title
    return own, (alone.instructions if alone else None) or instructions_of(settings)


def instructions_of(settings: Settings) -> str:
    """What a client tells its model about the server. By default only what the settings make sure of: contracts are not
    read yet, and where nothing on this machine can make a sandbox, `engines.local.sandbox` allows plain processes."""
    if settings.server.instructions:
        return settings.server.instructions
    if not settings.tools and settings.upstreams:
        return f"The tools are those of other MCP servers, and run there. {_INSTRUCTIONS}"
    where = ", isolated as far as its contract and this machine allow,"
    if settings.engines.local.sandbox not in ("auto", "off") and not usable_plugins():
        where = " in a container or a sandbox"
    elsewhere = " Tools of other MCP servers run there." if settings.upstreams else ""
    return f"Each tool runs one command{where} and returns what it wrote.{elsewhere} {_INSTRUCTIONS}"


def answer_to(line: bytes, settings: Settings) -> dict[str, Any] | None:
    """The answer to a message, as the SDK gives it; None where it is for the SDK to say."""
    try:
        message = json.loads(line.decode())
        json.dumps(message, ensure_ascii=False).encode()  # no halves of a character, which the SDK refuses
    except (ValueError, RecursionError):
        return None
    match message:
        case {"jsonrpc": "2.0", "id": int() | str() as identity, "method": str(method), "params": dict(params), **rest}:
            if rest or isinstance(identity, bool) or (isinstance(identity, int) and abs(identity) > _MOST_EXACT_NUMBER):
                return None
        case _:
            return None
    own, instructions = identity_of(settings, settings.server.toolsets)
    common: dict[str, Any] = {"capabilities": CAPABILITIES, "instructions": instructions}
    match method, params:
        case "initialize", {"protocolVersion": str(wanted), "capabilities": client, "clientInfo": info, **rest}:
            if rest or not _is_plain(client, info):
                return None
            spoken = wanted if wanted in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
            result = {**common, "protocolVersion": spoken, "serverInfo": own}
        case "server/discover", {"_meta": dict(meta), **rest}:
            expected = {f"{_META}protocolVersion", f"{_META}clientCapabilities", f"{_META}clientInfo"}
            if rest or meta.keys() != expected or meta[f"{_META}protocolVersion"] not in MODERN_VERSIONS:
                return None
            if not _is_plain(meta[f"{_META}clientCapabilities"], meta[f"{_META}clientInfo"]):
                return None
            if settings.records.is_kept:
                common["capabilities"] = {**CAPABILITIES, "extensions": {TASKS: {}}}
            result = {
                **common,
                "cacheScope": "public",
                "resultType": "complete",
                "supportedVersions": list(MODERN_VERSIONS),
                "ttlMs": DISCOVERY_KEPT,
                "_meta": {f"{_META}serverInfo": own},
            }
        case _:
            return None
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def _is_plain(capabilities: object, info: object) -> bool:
    """Whether a client says of itself what every validator takes: names of capabilities with nothing in them, or names
    that have nothing in them in turn; whether it announces changes of its roots; and who it is, in texts."""
    if not isinstance(capabilities, dict) or not isinstance(info, dict):
        return False
    plain = all(
        isinstance(parts, dict)
        and all(
            isinstance(value, bool) if (name, part) == ("roots", "listChanged") else value == {}
            for part, value in parts.items()
        )
        for name, parts in capabilities.items()
    )
    return plain and _REQUIRED_INFO <= info.keys() <= _TEXTS and all(isinstance(value, str) for value in info.values())


def _is_ready(descriptor: int, event: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, event)
    return any(found & event for _, found in waiting.poll(0))
