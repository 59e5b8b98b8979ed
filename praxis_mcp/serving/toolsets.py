"""Which tools a client is shown where the settings have toolsets: those of the toolset that its address names, else of
those that its token names, else of those that the server serves (`server.toolsets`). None of these widens another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.errors import UnknownToolError
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.toolsets import ToolsetSettings

TOOLSET_KEY = "praxis.toolset"
"""Where an HTTP request's ASGI scope holds the name of the toolset that its address names."""


class UnknownToolset(UnknownToolError):
    """There is no toolset of that name for that caller."""


@dataclass(frozen=True, slots=True)
class View:
    """What some toolsets hold together.

    Attributes:
        names: theirs.
        sets: what the settings say of each.
    """

    names: frozenset[str]
    sets: tuple[ToolsetSettings, ...]
    _find: Callable[[str], Entry | None]
    _always: Collection[str]

    def has(self, tool: str) -> bool:
        """Whether the tool of that name, which is served, is in it."""
        return tool in self._always or ((entry := self._find(tool)) is not None and self.holds(entry))

    def holds(self, entry: Entry) -> bool:
        """Whether a tool is in it."""
        return any(_holds(toolset, entry) for toolset in self.sets)


class Toolsets:
    """The toolsets of the settings.

    Args:
        settings: have them.
        find: the tool of that name that is served, if any.
        always: names of tools of the server's own, which every toolset holds.
    """

    def __init__(
        self, settings: Settings, find: Callable[[str], Entry | None] = lambda _: None, always: Collection[str] = ()
    ) -> None:
        self._settings = settings
        self._find = find
        self._always = always

    def view(self, requested: str | None = None, of_token: frozenset[str] | None = None) -> View | None:
        """What is shown; None where that is every tool.

        Args:
            requested: the toolset that the address names.
            of_token: those that the token names; None where it names none.

        Raises:
            UnknownToolset: `requested` does not exist, or is not one of those that the token, or the server, has.
        """
        toolsets = self._settings.toolsets
        served = self._settings.server.toolsets
        allowed = frozenset(served) if served else None
        if of_token is not None:
            allowed = of_token if allowed is None else allowed & of_token
        if requested is not None:
            if requested not in toolsets or (allowed is not None and requested not in allowed):
                raise UnknownToolset(f"There is no toolset {requested[:64]} here.")
            allowed = frozenset((requested,))
        if allowed is None:
            return None
        known = allowed.intersection(toolsets)
        return View(known, tuple(toolsets[name] for name in sorted(known)), self._find, self._always)

    def listed(self, entries: Sequence[Entry], of_token: frozenset[str] | None = None) -> tuple[Entry, ...]:
        """The tools among these that are shown; see `view`."""
        view = self.view(of_token=of_token)
        return tuple(entries if view is None else (entry for entry in entries if view.holds(entry)))


def _holds(toolset: ToolsetSettings, entry: Entry) -> bool:
    if any(fnmatchcase(entry.name, glob) for glob in toolset.exclude):
        return False
    if any(fnmatchcase(entry.name, glob) for glob in toolset.tools):
        return True
    if isinstance(entry, CatalogEntry):
        return not set(toolset.tags).isdisjoint(entry.traits.tags)
    return entry.upstream in toolset.upstreams
