"""Which tools a change on disk touches: of their contracts, of their code, or of the files that they mount."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.contracts.commands import CONTRACT_DIR
from praxis_mcp.contracts.discovery import is_contract_name, is_searched
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec, LocalEngineSpec
from praxis_mcp.errors import PraxisError
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.plans.builds import describe_build
from praxis_mcp.plans.paths import host_path, parse_mount
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger

MOST_WATCHED_FILES = 10_000
"""Files of one mount that are looked at; changes in a larger one are not noticed."""
_NOT_CODE = (".pyc", ".pyo", "~", ".tmp")
"""How names end of files that interpreters and editors make next to code."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What a look at the files has found.

    Attributes:
        tools: names of those that are new or changed, or whose files have changed; sorted.
        removed: names of those that are gone.
        findings_changed: whether other things are wrong with the contracts than before.
    """

    tools: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    findings_changed: bool = False

    def __bool__(self) -> bool:
        return bool(self.tools or self.removed or self.findings_changed)


@dataclass(slots=True)
class ToolWatch:
    """Keeps the catalog of a toolbox up to date, and says which tools a change touches.

    Besides its contract, a tool's files are the contract's folder, where the contract says ``{contract_dir}``; what it
    mounts read-only; what its image is built from; and the files that the words of a local command name. What a tool
    may write to is left out, as are hidden files and what interpreters cache: else each run would be the reason for
    the next one.

    Attributes:
        toolbox: whose catalog has been loaded.
    """

    toolbox: Toolbox
    _sources: dict[str, frozenset[Path]] = field(default_factory=dict)
    _states: dict[Path, bytes | None] = field(default_factory=dict)

    async def run(
        self,
        on_change: Callable[[Touched], Awaitable[None]],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Await `on_change` whenever something is touched after it has started, until cancelled."""
        await self._find_touched()
        task_status.started()
        await self.toolbox.catalog.watch_files(lambda: self._look(on_change), self._watched)

    async def _look(self, on_change: Callable[[Touched], Awaitable[None]]) -> None:
        catalog = self.toolbox.catalog
        before = catalog.diagnostics
        change = await catalog.load()
        self.toolbox.engines.retire({*change.changed, *change.removed})
        files = await self._find_touched()
        tools = {*change.added, *change.changed, *files}
        found = Touched(tuple(sorted(tools)), change.removed, findings_changed=catalog.diagnostics != before)
        if found:
            await on_change(found)

    @property
    def too_large(self) -> tuple[Path, ...]:
        """Directories with more than `MOST_WATCHED_FILES` files, in which changes are not noticed."""
        return tuple(sorted(path for path, state in self._states.items() if state is None))

    def _watched(self) -> Sequence[Path]:
        return sorted(path for path, state in self._states.items() if state is not None)

    async def _find_touched(self) -> set[str]:
        """Tools that were known before, and whose files are not as they were."""
        before, known = self._states, self._sources
        entries, settings = self.toolbox.catalog.entries(), self.toolbox.settings
        self._sources, self._states = await anyio.to_thread.run_sync(_look_at_files, entries, settings)
        differing = {path for path, state in self._states.items() if path in before and before[path] != state}
        return {name for name, paths in self._sources.items() if name in known and paths & differing}


def _look_at_files(
    entries: Iterable[CatalogEntry], settings: Settings
) -> tuple[dict[str, frozenset[Path]], dict[Path, bytes | None]]:
    sources = {entry.name: _sources_of(entry, settings) for entry in entries}
    states = {path: _state_of(path) for path in frozenset[Path]().union(*sources.values())}
    return sources, states


def _sources_of(entry: CatalogEntry, settings: Settings) -> frozenset[Path]:
    try:
        contract = entry.contract
        spec, folder = contract.engine_spec, contract.directory
        if not isinstance(spec, CommandSpec):
            return frozenset()
        mounts = [parse_mount(source, target, settings.root, folder) for source, target in spec.mounts.items()]
        found = {mount.source for mount in mounts if not mount.writable}
        if isinstance(spec, DaggerEngineSpec) and (build := describe_build(contract, spec, settings)) is not None:
            places = (build.requirements, build.dockerfile, build.context)
            found |= {path for path in places if path is not None}
        if isinstance(spec, LocalEngineSpec):
            texts = (*spec.command, spec.cwd or "", *(text for text in spec.env.values() if isinstance(text, str)))
            if folder is not None and any(CONTRACT_DIR in text for text in texts):
                found.add(folder)
            start = host_path(spec.cwd or ".", settings.root, folder)
            words = (start / word for word in spec.command)
            # Programs of the system do not change while somebody writes a tool.
            found |= {path for path in words if path.is_relative_to(settings.root) and os.path.isfile(path)}  # noqa: PTH113
        written = [mount.source for mount in mounts if mount.writable]
        return frozenset(path for path in found if path not in written)
    except (PraxisError, OSError) as exc:
        # Its calls say so, and how to fix it.
        logger.debug("files of {} are not watched: {}", entry.name, type(exc).__name__)
        return frozenset()


def _state_of(path: Path) -> bytes | None:
    """A digest of names, sizes and times of what is there; None where that is too much to look at."""
    digest = hashlib.sha256()
    waiting, seen = [str(path)], 0
    while waiting:
        place = waiting.pop()
        seen += 1
        if seen > MOST_WATCHED_FILES:
            return None
        try:
            about = os.stat(place)  # noqa: PTH116 - thousands of files: a Path for each costs more than the look
            if os.path.isdir(place):  # noqa: PTH112
                with os.scandir(place) as entries:
                    waiting += sorted(entry.path for entry in entries if _counts(entry))
                digest.update(place.encode(errors="surrogateescape") + b"\0")
                continue
        except OSError:
            continue  # gone meanwhile
        digest.update(repr((place, about.st_size, about.st_mtime_ns)).encode(errors="surrogatepass"))
    return digest.digest()


def _counts(entry: os.DirEntry[str]) -> bool:
    # A contract has its own entry in the catalog; others in the same folder are not this tool's.
    name = entry.name
    return not (entry.is_symlink() or not is_searched(name) or name.endswith(_NOT_CODE) or is_contract_name(name))
