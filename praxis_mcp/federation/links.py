"""Which resources of upstreams each caller may read: those that results of its own calls have linked, and of which
tool."""

from __future__ import annotations

from hashlib import sha256

from praxis_mcp.federation.addresses import granting

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
        """The tool of which a result of a call of `caller` has linked that resource, or what it is a part of, lately;
        None where none has."""
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
