"""All tools below the tool directories: discovered, kept up to date, found by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.contracts.catalog.approvals import ContractApprovals, announce_changes, held_finding
from praxis_mcp.contracts.catalog.entries import (
    CatalogEntry,
    FaceCache,
    Traits,
    default_cache_dir,
    entry_from_face,
    entry_of,
    face_of,
)
from praxis_mcp.contracts.discovery import (
    DefaultsFile,
    DefaultsFinder,
    find_contracts,
    misnamed_contracts,
    read_bytes,
    watch_contracts,
)
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.errors import ContractError, UnknownToolError
from praxis_mcp.support.installation import OWN_ENGINES
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


@dataclass(frozen=True, slots=True)
class DisabledTool:
    """A tool that somebody has disabled.

    Attributes:
        name, source: which one.
        by: what says so: ``enabled: false`` or ``disabled_tools``, as the beginning of a sentence.
    """

    name: str
    source: Path
    by: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found.

    Attributes:
        tools: the tools that are served, by name.
        disabled: those that are not, for which somebody has said so; by file.
        known: every usable contract, by file; also those whose names clash.
        diagnostics: everything wrong, sorted by file and line.
    """

    tools: Mapping[str, CatalogEntry] = field(default_factory=dict)
    known: Mapping[str, CatalogEntry] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()
    disabled: tuple[DisabledTool, ...] = ()


class Catalog:
    """The tools that the contracts in some directories declare.

    One broken contract hides no other: it is among the `diagnostics`. Two contracts of one name are both refused,
    unless one of them is being served already: that one stays. While the catalog lives, a tool whose file becomes
    broken keeps its last good version.

    Args:
        directories: searched recursively; relative ones start at the current directory.
        cache_dir: where faces of contracts are cached; None is `default_cache_dir`.
        approvals: contracts that they do not cover are held back; None holds nothing back.
        disabled: globs of names that are not served.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *,
        cache_dir: Path | None = None,
        approvals: ContractApprovals | None = None,
        disabled: Sequence[str] = (),
    ) -> None:
        self._approvals = approvals
        self._disabled = tuple(disabled)
        self._directories = tuple(directory.absolute() for directory in directories)
        self._cache = FaceCache(cache_dir or default_cache_dir(), self._directories)
        self._scan = Scan()
        self._entries: tuple[CatalogEntry, ...] = ()
        self._lock = anyio.Lock()

    async def load(self) -> CatalogChange:
        """Look at all files, in a worker thread; tells how the tools differ from the last look."""
        async with self._lock:
            before = self._scan
            self._scan = await anyio.to_thread.run_sync(
                scan, self._directories, self._cache, before, self._approvals, self._disabled
            )
            change = _difference(before, self._scan)
            if change:
                self._entries = tuple(self._scan.tools.values())
        return change

    def entries(self) -> tuple[CatalogEntry, ...]:
        """All tools, sorted by name; the same tuple until something changes."""
        return self._entries

    def find(self, name: str) -> CatalogEntry | None:
        """The tool of that name, if there is one."""
        return self._scan.tools.get(name)

    def get(self, name: str) -> CatalogEntry:
        """The tool of that name.

        Raises:
            UnknownToolError: there is none; names the closest one.
        """
        entry = self._scan.tools.get(name)
        if entry is None:
            from praxis_mcp.contracts.problems import did_you_mean, quoted

            if (disabled := next((item for item in self._scan.disabled if item.name == name), None)) is not None:
                raise UnknownToolError(f"The tool {quoted(name)} is disabled: {disabled.by}.")
            hint = did_you_mean(name, self._scan.tools)
            raise UnknownToolError(
                f"There is no tool {quoted(name)}{hint}.",
                remedy=None if hint else "praxis-mcp list shows all tools, and what is wrong with contracts.",
            )
        return entry

    @property
    def disabled(self) -> tuple[DisabledTool, ...]:
        """The tools that somebody has disabled, sorted by name."""
        return self._scan.disabled

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

        Call `load` first: whatever the watch finds is reported as a change. New diagnostics are logged, and so is each
        contract that appears or changes, with what it may do that it could not do before.

        Args:
            on_change: awaited for each change of the served tools; not while nothing of them changes.
        """

        async def look() -> None:
            known = set(self.diagnostics)
            before = self._scan
            change = await self.load()
            await anyio.to_thread.run_sync(
                announce_changes, before.tools, self._scan.tools, change.added, change.changed
            )
            for diagnostic in self.diagnostics:
                if diagnostic not in known:
                    logger.log("ERROR" if diagnostic.is_error else "WARNING", "{}", diagnostic)
            if change:
                await on_change(change)

        await self.watch_files(look)

    async def watch_files(
        self, look: Callable[[], Awaitable[None]], others: Callable[[], Sequence[Path]] = tuple
    ) -> None:
        """Await `look` once, and whenever `load` may find something else than before, until cancelled.

        Args:
            look: what to await; it calls `load`.
            others: gives more files and directories, as they are now, whose changes are awaited too.
        """
        approvals = self._approvals.directory if self._approvals is not None else None
        own = () if approvals is None else (approvals,)
        await watch_contracts(self._directories, look, lambda: (*own, *others()))


def _difference(before: Scan, now: Scan) -> CatalogChange:
    old, new = before.tools, now.tools
    return CatalogChange(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] is not old[name]),
        removed=tuple(name for name in old if name not in new),
    )


def scan(
    directories: Sequence[Path],
    cache: FaceCache,
    before: Scan,
    approvals: ContractApprovals | None = None,
    disabled: Sequence[str] = (),
) -> Scan:
    """Look once.

    A contract whose file has not changed keeps its entry. One whose file is broken now, as in the middle of an edit, or
    that is not approved as it is now, keeps its last good version; one whose file is gone goes.

    Args:
        directories: where to look.
        cache: what contracts looked like.
        before: the last look.
        approvals: hold back what they do not cover; None serves everything.
        disabled: globs of names that are not served.
    """
    others: list[str] = []
    files, found = find_contracts(directories, others)
    found += misnamed_contracts(others, files)
    faces = cache.read()
    used: dict[str, Any] = {}
    known: dict[str, CatalogEntry] = {}
    defaults = DefaultsFinder(directories)
    for source in files:
        try:
            content = read_bytes(source)
        except FileNotFoundError:
            continue  # gone since its directory was read
        except OSError as exc:
            found.append(Diagnostic(message=f"The file cannot be read: {exc.strerror}.", path=Path(source)))
            entry = None
        else:
            shared = defaults.of(source)
            entry, diagnostics = _usable_entry(source, content, shared, faces, used, before.known.get(source))
            found += diagnostics
        if entry is None:
            entry = _last_good(source, before, found)
        elif approvals is not None and entry.traits.enabled:
            entry = _approved(entry, before.known.get(source), approvals, found)
        if entry is not None:
            known[source] = entry
    cache.write(used)
    off = {source: by for source, entry in known.items() if (by := _disabled_by(entry, disabled))}
    tools = _by_name({source: entry for source, entry in known.items() if source not in off}, before, found)
    left_out = sorted((known[source].name, source, by) for source, by in off.items())
    # What is wrong with defaults is found with each contract that takes them.
    problems = tuple(sorted(dict.fromkeys(found), key=_order))
    return Scan(tools, known, problems, tuple(DisabledTool(name, Path(source), by) for name, source, by in left_out))


def _disabled_by(entry: CatalogEntry, globs: Sequence[str]) -> str:
    """What has disabled a tool; empty where nothing has."""
    if not entry.traits.enabled:
        return "its contract says enabled: false"
    found = next((glob for glob in globs if fnmatchcase(entry.name, glob)), None)
    return f"disabled_tools has {found}" if found is not None else ""


def _usable_entry(
    source: str,
    content: bytes,
    defaults: tuple[DefaultsFile, ...],
    faces: Mapping[str, Any],
    used: dict[str, Any],
    before: CatalogEntry | None,
) -> tuple[CatalogEntry | None, Sequence[Diagnostic]]:
    """As `_entry`; a defect of ours that one file brings to light takes neither the other tools nor the server down."""
    try:
        return _entry(source, content, defaults, faces, used, before)
    except Exception as exc:  # noqa: BLE001
        # The type alone: a message may repeat what stands in the file.
        kind = type(exc).__name__
        logger.error("reading {} failed unexpectedly: {}", source, kind)
        return None, (
            Diagnostic(
                message=f"The file could not be read because of an unexpected {kind}.",
                remedy="This is a defect of praxis-mcp: please report it with the file. Simplify the file meanwhile.",
                path=Path(source),
            ),
        )


def _entry(
    source: str,
    content: bytes,
    defaults: tuple[DefaultsFile, ...],
    faces: Mapping[str, Any],
    used: dict[str, Any],
    before: CatalogEntry | None,
) -> tuple[CatalogEntry | None, Sequence[Diagnostic]]:
    """The entry of one file, from the cheapest place: this process, the cache, the file itself."""
    digest = hashlib.sha256(content)
    key = ""
    for file in defaults:
        # Its length keeps apart what stands at the end of one file from the beginning of the next.
        digest.update(b"\0%d\0" % len(file.content) + file.content)
        key += f"{file.path}\0{file.problem or ''}\0"  # findings name the file
    fingerprint = digest.hexdigest()
    key = fingerprint + key + os.path.splitext(source)[1]  # noqa: PTH122
    item = faces.get(key)
    if before is not None and before.fingerprint == fingerprint:
        if item is not None:
            used[key] = item
        return before, before.diagnostics
    path = Path(source)
    if item is not None:
        try:
            diagnostics = tuple(_diagnostic(values, path) for values in item["diagnostics"])
            face = item["face"]
            entry = None
            if face is not None:
                entry = entry_from_face(face, path, fingerprint, diagnostics, content, defaults)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # damaged: as if it were not there
        else:
            used[key] = item
            return entry, diagnostics
    # YAML and JSON Schema are needed only here: a start with a warm cache does without.
    from praxis_mcp.contracts.reading.loading import load_bytes

    loaded = load_bytes(content, path, defaults=defaults)
    entry = entry_of(loaded.contract, path, fingerprint, loaded.diagnostics) if loaded.contract else None
    # What becomes of a contract for another package's engine changes with the packages that are installed.
    if entry.traits.engine in OWN_ENGINES if entry else all(item.field != "engine" for item in loaded.diagnostics):
        used[key] = {
            "face": face_of(entry) if entry else None,
            "diagnostics": [_diagnostic_values(diagnostic, path) for diagnostic in loaded.diagnostics],
        }
    return entry, loaded.diagnostics


def _approved(
    entry: CatalogEntry, served: CatalogEntry | None, approvals: ContractApprovals, found: list[Diagnostic]
) -> CatalogEntry | None:
    """The entry, if it may be served; else the version that is, if there is one."""
    reasons = _why_held(entry, approvals)
    if not reasons:
        return entry
    # An approval that was taken back holds back what it covered.
    stays = served if served is not None and served is not entry and not _why_held(served, approvals) else None
    found.append(held_finding(entry, reasons, stays))
    return stays


def _why_held(entry: CatalogEntry, approvals: ContractApprovals) -> tuple[str, ...]:
    try:
        return approvals.why_held(entry)
    except ContractError as exc:
        return (exc.message,)  # its face came from a damaged cache


def _last_good(source: str, before: Scan, found: list[Diagnostic]) -> CatalogEntry | None:
    entry = before.known.get(source)
    if entry is None or before.tools.get(entry.name) is not entry:
        return None
    found.append(
        Diagnostic(
            message=f"{entry.name} stays as it was before this change.",
            remedy="Fix the file, or delete it to remove the tool.",
            severity=Severity.WARNING,
            path=entry.source,
        )
    )
    return entry


def _by_name(known: Mapping[str, CatalogEntry], before: Scan, found: list[Diagnostic]) -> dict[str, CatalogEntry]:
    groups: dict[str, list[CatalogEntry]] = {}
    for entry in known.values():
        groups.setdefault(entry.name, []).append(entry)
    tools: dict[str, CatalogEntry] = {}
    for name in sorted(groups):
        group = groups[name]
        if len(group) == 1:
            tools[name] = group[0]
            continue
        # A tool that is being served is not lost because somebody adds a second file with its name.
        served = before.tools.get(name)
        stays = next((entry for entry in group if served is not None and entry.source == served.source), None)
        if stays is not None:
            tools[name] = stays
        for entry in group:
            if entry is not stays:
                found.append(_clash(entry, group, stays))
    return tools


def _clash(entry: CatalogEntry, group: Sequence[CatalogEntry], stays: CatalogEntry | None) -> Diagnostic:
    others = ", ".join(str(other.source) for other in group if other is not entry)
    fate = f"the one in {stays.source}, which was there first, is served" if stays else "neither is served"
    return Diagnostic(
        message=f'The name "{entry.name}" is also that of {others}; {fate}.',
        remedy="Rename one of them.",
        field="name",
        path=entry.source,
    )


def _order(diagnostic: Diagnostic) -> tuple[str, int, int, str, str]:
    return (str(diagnostic.path), diagnostic.line, diagnostic.column, diagnostic.field, diagnostic.message)


def _diagnostic_values(diagnostic: Diagnostic, source: Path) -> list[Any]:
    elsewhere = str(diagnostic.path) if diagnostic.path != source else ""
    texts = [diagnostic.message, diagnostic.remedy, diagnostic.field, diagnostic.code, elsewhere]
    return [*texts, diagnostic.severity.value, diagnostic.line, diagnostic.column]


def _diagnostic(values: Any, source: Path) -> Diagnostic:
    message, remedy, field_, code, elsewhere, severity, line, column = values
    if not all(isinstance(text, str) for text in (message, remedy, field_, code, elsewhere)):
        raise TypeError("no diagnostic")
    path = Path(elsewhere) if elsewhere else source
    return Diagnostic(message, remedy, field_, Severity(severity), path, int(line), int(column), code)
