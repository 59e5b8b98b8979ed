"""Addresses here for what upstreams name there, ``praxis://upstreams/{name}/{the address there}``; they replace the
others in what upstreams answer, and each caller may read those that their own calls linked.

An upstream that is a server like this one names parts of its records in the middle of its text; such an address means
nothing here, or worse, a record of ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from praxis_mcp.engines.base import RemoteContent

PREFIX = "praxis://upstreams/"
RUN_KEY = "io.github.praxis-mcp/run"
"""Where a result's `_meta` says which run it was. Reverse DNS, as the specification asks (basic, "_meta")."""
MOST_IN_TEXT = 1000
"""Addresses in one text that are replaced."""

_OURS = "praxis://"
_RUN = re.compile(r"(praxis://runs/[A-Za-z0-9_-]{1,64})(?![^/?])")
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_IN_TEXT = re.compile(r"praxis://(?:runs|upstreams)/[A-Za-z0-9_%./~?=&*+-]*[A-Za-z0-9_%/~=]")

Here = Callable[[str], str | None]
"""The address here of one there; None where it cannot be read through us."""


def address_here(upstream: str, uri: str) -> str:
    """The address here of a resource there. The range of one of a server like this stays readable at the end."""
    base, mark, part = uri.partition("?") if uri.startswith(_OURS) else (uri, "", "")
    return f"{PREFIX}{upstream}/{quote(base, safe='', errors='surrogatepass')}{mark}{part}"


def address_there(uri: str) -> tuple[str, str]:
    """The upstream that an address here names, and the address there; a range that was put after it goes along."""
    path, mark, part = uri.removeprefix(PREFIX).partition("?")
    name, _, there = path.partition("/")
    return name, unquote(there, errors="surrogatepass") + mark + part


def linked(content: RemoteContent) -> Iterator[str]:
    """What an answer lets its caller read: what it links, and the records of its run where it names that."""
    for block in content.blocks:
        if block.get("type") == "resource_link" and isinstance(block.get("uri"), str):
            yield block["uri"]
    run = content.meta.get(RUN_KEY)
    run_id = run.get("runId") if isinstance(run, Mapping) else None
    if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
        yield f"praxis://runs/{run_id}"


def granting(uri: str) -> Iterator[str]:
    """The addresses each of which, once linked, lets this one be read: itself; of a server like this one also the whole
    of which it is a range, and the run that it is a part of."""
    yield uri
    if uri.startswith(_OURS):
        yield uri.partition("?")[0]
        if run := _RUN.match(uri):
            yield run[1]


def with_addresses_here(content: RemoteContent, upstream: str, here: Here) -> RemoteContent:
    """An answer whose addresses can be read here; its structured content stays as its schema says."""
    return dataclasses.replace(content, blocks=tuple(_block(block, upstream, here) for block in content.blocks))


def resource_with_addresses_here(resource: Mapping[str, Any], here: Here) -> dict[str, Any]:
    """The contents of a resource whose addresses can be read here."""
    changed = dict(resource)
    if isinstance(resource.get("uri"), str):
        changed["uri"] = here(resource["uri"]) or resource["uri"]
    if isinstance(resource.get("text"), str):
        changed["text"] = _text(resource["text"], here)
    return changed


def _block(block: Mapping[str, Any], upstream: str, here: Here) -> Mapping[str, Any]:
    kind = block.get("type")
    if kind == "resource_link" and isinstance(block.get("uri"), str):
        return {**block, "uri": address_here(upstream, block["uri"])}
    if kind == "text" and isinstance(block.get("text"), str):
        return {**block, "text": _text(block["text"], here)}
    if kind == "resource" and isinstance(block.get("resource"), Mapping):
        return {**block, "resource": resource_with_addresses_here(block["resource"], here)}
    return block


def _text(text: str, here: Here) -> str:
    if _OURS not in text:
        return text
    return _IN_TEXT.sub(lambda found: here(found[0]) or found[0], text, count=MOST_IN_TEXT)


MAX_REMEMBERED_LINKS = 4096
"""Links of all callers together that are remembered; each takes the same few bytes, however long its address is."""


class CallerLinks:
    """Links by caller, the newest ones. Beyond `most` the caller gives up its oldest that has the most of them, so that
    nobody can make the links of others be forgotten by getting many."""

    def __init__(self, most: int = MAX_REMEMBERED_LINKS) -> None:
        self._most = most
        self._links: dict[str, dict[bytes, str]] = {}
        self._count = 0

    def remember(self, caller: str, upstream: str, uri: str, tool: str) -> None:
        """A result of a call of `caller` to that tool has linked that resource."""
        key = _key(upstream, uri)
        links = self._links.setdefault(caller, {})
        if key in links:
            del links[key]  # it becomes the newest
        else:
            self._count += 1
        links[key] = tool
        while self._count > self._most:
            self._forget_one()

    def tool_of(self, caller: str, upstream: str, uri: str) -> str | None:
        """The tool of which a result of a call of `caller` has linked that resource, or what it is a part of,
        recently; None where none has."""
        links = self._links.get(caller, {})
        return next((tool for whole in granting(uri) if (tool := links.get(_key(upstream, whole))) is not None), None)

    def _forget_one(self) -> None:
        caller, links = max(self._links.items(), key=lambda item: len(item[1]))
        del links[next(iter(links))]
        self._count -= 1
        if not links:
            del self._links[caller]


def _key(upstream: str, uri: str) -> bytes:
    # Names of upstreams hold no line break. A lone surrogate in an address must not break a call.
    return sha256(f"{upstream}\n{uri}".encode(errors="surrogatepass")).digest()
