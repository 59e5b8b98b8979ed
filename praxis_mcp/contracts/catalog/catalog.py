"""All tools below the tool directories: discovered, kept up to date, found by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from praxis_mcp.contracts.catalog.approvals import ContractApprovals
from praxis_mcp.contracts.catalog.entries import CatalogEntry, Traits
from praxis_mcp.contracts.catalog.face_cache import FaceCache, default_cache_dir
from praxis_mcp.contracts.catalog.powers import announce
from praxis_mcp.contracts.catalog.scanning import Scan, scan
from praxis_mcp.contracts.catalog.watching import watch_contracts
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import UnknownToolError
from praxis_mcp.support.logs import logger

__all__ = ["Catalog", "CatalogChange", "CatalogEntry", "Traits"]


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """How the served tools differ from before; names, sorted. False if they do not."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Catalog:
    """The tools that the contracts in some directories declare.

    One broken contract hides no other: it is among the `diagnostics`. Two contracts of one name are both refused,
    unless one of them is being served already: that one stays. While the catalog lives, a tool whose file becomes
    broken keeps its last good version.

    Args:
        directories: searched recursively; relative ones start at the current directory.
        cache_dir: where faces of contracts are cached; None is `default_cache_dir`.
        approvals: contracts that they do not cover are held back; None holds nothing back.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *,
        cache_dir: Path | None = None,
        approvals: ContractApprovals | None = None,
    ) -> None:
        self._approvals = approvals
        self._directories = tuple(directory.absolute() for directory in directories)
        self._cache = FaceCache(cache_dir or default_cache_dir(), self._directories)
        self._scan = Scan()
        self._entries: tuple[CatalogEntry, ...] = ()
        self._lock = anyio.Lock()

    async def load(self) -> CatalogChange:
        """Look at all files, in a worker thread; tells how the tools differ from the last look."""
        async with self._lock:
            before = self._scan
            self._scan = await anyio.to_thread.run_sync(scan, self._directories, self._cache, before, self._approvals)
            change = _difference(before, self._scan)
            if change:
                self._entries = tuple(self._scan.tools.values())
        return change

    def entries(self) -> tuple[CatalogEntry, ...]:
        """All tools, sorted by name; the same tuple until something changes."""
        return self._entries

    def get(self, name: str) -> CatalogEntry:
        """The tool of that name.

        Raises:
            UnknownToolError: there is none; names the closest one.
        """
        entry = self._scan.tools.get(name)
        if entry is None:
            from praxis_mcp.contracts.problems import did_you_mean, quoted

            hint = did_you_mean(name, self._scan.tools)
            raise UnknownToolError(
                f"There is no tool {quoted(name)}{hint}.",
                remedy=None if hint else "praxis-mcp list shows all tools, and what is wrong with contracts.",
            )
        return entry

    def serves(self, contract: ToolContract) -> bool:
        """Whether that contract of this catalog is still the one that its name stands for."""
        entry = self._scan.tools.get(contract.name)
        return entry is not None and entry.is_of(contract)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything wrong with the contracts, sorted by file and line."""
        return self._scan.diagnostics

    async def watch(self, on_change: Callable[[CatalogChange], Awaitable[None]]) -> None:
        """Keep the catalog up to date until cancelled.

        Call `load` first: whatever the watch finds is told as a change. New diagnostics are logged, and so is each
        contract that appears or changes, with what it may do that it could not do before.

        Args:
            on_change: awaited for each change of the served tools; not while nothing of them changes.
        """

        async def look() -> None:
            known = set(self.diagnostics)
            before = self._scan
            change = await self.load()
            await anyio.to_thread.run_sync(announce, before.tools, self._scan.tools, change.added, change.changed)
            for diagnostic in self.diagnostics:
                if diagnostic not in known:
                    logger.log("ERROR" if diagnostic.is_error else "WARNING", "{}", diagnostic)
            if change:
                await on_change(change)

        approvals = self._approvals.directory if self._approvals is not None else None
        await watch_contracts(self._directories, look, () if approvals is None else (approvals,))


def _difference(before: Scan, now: Scan) -> CatalogChange:
    old, new = before.tools, now.tools
    return CatalogChange(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] is not old[name]),
        removed=tuple(name for name in old if name not in new),
    )
