"""Tools of other MCP servers, republished together with the contracts: listed, kept up to date, called; and whose a
tool's name is, where several upstreams could take it.

Names here are a prefix and the name there, which the upstream chooses. Where one prefix begins another, as ``git_``
begins ``git_hub_``, the upstream with the shorter one could offer ``hub_push`` and so take the place of another's
``git_hub_push``, whose callers would notice nothing. So that upstream is refused. Equal prefixes are somebody's choice
to have one space of names for several upstreams: there a name goes to the upstream that comes first, and then stays
with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.engines.base import RemoteContent
from praxis_mcp.engines.remote import masked_resource, read_answer
from praxis_mcp.errors import ExecutionError, SettingsError
from praxis_mcp.federation.remote_tools import Approvals, RemoteTool
from praxis_mcp.federation.upstream_source import UpstreamSource
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import UpstreamSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.workers import compute, size_of_json
from praxis_mcp.upstreams.spec import ProgressListener

FIRST_LIST = 5.0
"""Seconds after the start during which a ``tools/list`` waits for upstreams that have not listed theirs yet. Clients
hear of those as soon as they have."""
FIRST_CALL = 35.0
"""Seconds that the call of a tool waits for an upstream that may have it and has not answered since the start: it
may take 30 to be reached."""
APPROVALS_INTERVAL = 2.0
"""Seconds between two looks at the file of approvals."""

Entry = CatalogEntry | RemoteTool


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """What an upstream's tool answered, faithfully."""

    tool: RemoteTool
    content: RemoteContent
    is_error: bool


@dataclass(frozen=True, slots=True)
class UpstreamReport:
    """The state of one upstream.

    Attributes:
        name, address: which one.
        version: the protocol revision used with it; empty while there is no connection.
        attempted: whether it has been asked for its tools, with or without success.
        trouble: why it cannot be reached; empty where it can.
        tools: what is served of it.
        held: what waits for approval, new or changed.
        left_out: name there and why it is not served.
    """

    name: str
    address: str
    version: str
    attempted: bool
    trouble: str
    tools: tuple[RemoteTool, ...]
    held: tuple[RemoteTool, ...]
    left_out: tuple[tuple[str, str], ...]


class Upstreams:
    """The upstreams of the settings. Nothing is connected before `run`.

    Names that clash are given out in order: a contract of ours wins, then the upstream whose name comes first, even
    while its tool is held back: another server's must not step in for it unseen. A name stays with the upstream that
    has it (see `Owners`). While an upstream is down its tools stay listed for a while, and their calls say
    why they fail.
    """

    def __init__(self, settings: Settings) -> None:
        refused = refusals(settings.upstreams)
        prefixes = {name: prefix_of(name, settings.upstreams[name]) for name in sorted(settings.upstreams)}
        self._sources = {
            name: UpstreamSource(name, settings, prefix, refused.get(name, "")) for name, prefix in prefixes.items()
        }
        self._owners = Owners({name: prefix for name, prefix in prefixes.items() if name not in refused})
        self._first_list_ends = math.inf
        self._approvals = Approvals(settings.upstream_approvals)
        self._tools: dict[str, RemoteTool] = {}
        self._held: dict[str, RemoteTool] = {}
        self._clashes: dict[str, list[tuple[str, str]]] = {}
        self._globs = settings.disabled_tools
        self._disabled: dict[str, list[tuple[str, str]]] = {}
        self._merged: tuple[Sequence[CatalogEntry], tuple[Entry, ...]] | None = None
        self._running = False
        self._on_change: Callable[[], None] = lambda: None

    async def run(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Keep the lists up to date until cancelled, then close the connections.

        Args:
            on_change: called when the tools that are served have changed.
        """
        if not self._sources:
            return
        self._on_change = on_change
        self._running = True
        self._first_list_ends = anyio.current_time() + FIRST_LIST
        try:
            await self._look_at_approvals()
            async with anyio.create_task_group() as tasks:
                for source in self._sources.values():
                    tasks.start_soon(source.run, self._rebuild)
                if any(source.settings.pin for source in self._sources.values()):
                    tasks.start_soon(self._watch_approvals)
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    for source in self._sources.values():
                        tasks.start_soon(source.close)

    async def ready(self) -> None:
        """Wait until every upstream has been asked for its tools once, or `FIRST_LIST` seconds have passed since the
        start."""
        if self._running:
            with anyio.CancelScope(deadline=self._first_list_ends):
                await self.wait_attempted()

    @property
    def all_attempted(self) -> bool:
        """Whether every upstream has been asked for its tools once, with or without success."""
        return all(source.attempted.is_set() for source in self._sources.values())

    async def wait_for(self, name: str) -> None:
        """Wait, for `FIRST_CALL` seconds at most, until the upstreams that may have a tool of that name have been asked
        for their tools once."""
        if self._running:
            with anyio.move_on_after(FIRST_CALL):
                for upstream in self._owners.candidates(name):
                    await self._sources[upstream].attempted.wait()

    async def wait_attempted(self) -> None:
        """Wait until every upstream has been asked for its tools once; needs `run` meanwhile."""
        for source in self._sources.values():
            await source.attempted.wait()

    def merged_with(self, entries: Sequence[CatalogEntry]) -> Sequence[Entry]:
        """The contracts and the upstreams' tools, sorted by name; the same object until something changes."""
        if not self._tools:
            return entries
        if self._merged is None or self._merged[0] is not entries:
            ours = {entry.name for entry in entries}
            for name in ours & self._tools.keys():
                logger.warning(
                    "{} of the upstream {} is not served: a contract has that name", name, self._tools[name].upstream
                )
            theirs = [tool for name, tool in self._tools.items() if name not in ours]
            self._merged = entries, tuple(sorted([*entries, *theirs], key=lambda entry: entry.name))
        return self._merged[1]

    def find(self, name: str) -> RemoteTool | None:
        """The tool of that name, where an upstream has it and it may be served.

        Raises:
            ExecutionError: it waits for approval.
        """
        held = self._held.get(name)
        if held is not None and name not in self._tools:
            raise ExecutionError(
                f"{name} is held back: it is new or has changed since it was approved.",
                remedy="The operator of this server looks at it and runs: praxis-mcp upstreams approve "
                f"{held.upstream} (with the server's own --config, where it has one)",
            )
        return self._tools.get(name)

    def served(self, name: str) -> RemoteTool | None:
        """The tool of that name, where it is an upstream's and is served."""
        return self._tools.get(name)

    async def call(
        self,
        tool: RemoteTool,
        arguments: Mapping[str, Any],
        on_progress: ProgressListener | None = None,
    ) -> RemoteAnswer:
        """Call a tool; the upstream checks the arguments.

        Args:
            tool: the tool.
            arguments: passed on as they are.
            on_progress: receives progress.

        Raises:
            ExecutionError: see `Upstream.call`; too slow is an error as well.
        """
        source = self._sources[tool.upstream]
        limit = source.settings.timeout
        upstream = source.upstream()
        try:
            answer = await upstream.call(tool.remote_name, arguments, timeout=limit, on_progress=on_progress)
        except TimeoutError as exc:
            raise ExecutionError(
                f"{tool.name} did not answer within {limit:g} s, and was cancelled at the upstream {tool.upstream}.",
                remedy=f"Ask for less in one call, or raise upstreams.{tool.upstream}.timeout in the settings.",
            ) from exc
        content = await compute(read_answer, answer, upstream.masker, size=size_of_json(answer))
        return RemoteAnswer(tool, content, answer.get("isError") is True)

    async def read(self, name: str, uri: str) -> tuple[Mapping[str, Any], ...]:
        """The contents of a resource of an upstream, as their JSON says, without a check of who may read it.

        Raises:
            ExecutionError: see `Upstream.read_resource`.
        """
        source = self._sources[name]
        upstream = source.upstream()
        try:
            answer = await upstream.read_resource(uri, timeout=source.settings.timeout)
        except TimeoutError as exc:
            raise ExecutionError(f"{name} did not give the resource within {source.settings.timeout:g} s.") from exc
        contents = answer.get("contents")
        found = [item for item in (contents if isinstance(contents, list) else []) if isinstance(item, dict)]
        return tuple([await compute(masked_resource, item, upstream.masker, size=size_of_json(item)) for item in found])

    def approve(self, name: str, tools: Sequence[str] = ()) -> tuple[RemoteTool, ...]:
        """Approve what is held back of an upstream: these tools, or all. Returns what was approved.

        Args:
            name: of the upstream.
            tools: names there; of ``NAME@FINGERPRINT`` the tool is approved only if it is still what was looked at.

        Raises:
            SettingsError: there is no such upstream or tool, a tool has changed, or the file cannot be written.
            ExecutionError: the upstream's tools could not be listed, so that nobody knows what would be approved.
        """
        if name not in self._sources:
            raise SettingsError(f"There is no upstream {name} in the settings.")
        if trouble := self._sources[name].trouble:
            raise ExecutionError(f"Nothing was approved, because {name} does not list its tools. {trouble}")
        found = {tool.remote_name: tool for tool in self._held.values() if tool.upstream == name}
        chosen = tuple(_chosen(found, word, name) for word in tools) or tuple(found.values())
        self._approvals.approve(chosen)
        self._rebuild()
        return chosen

    def reports(self) -> tuple[UpstreamReport, ...]:
        """The state of every upstream, by name."""
        return tuple(
            UpstreamReport(
                name=name,
                address=source.place,
                version=source.version,
                attempted=source.attempted.is_set(),
                trouble=source.trouble,
                tools=tuple(tool for tool in self._tools.values() if tool.upstream == name),
                held=tuple(tool for tool in self._held.values() if tool.upstream == name),
                left_out=(*source.unusable, *self._clashes.get(name, ()), *self._disabled.get(name, ())),
            )
            for name, source in self._sources.items()
        )

    def approved_before(self, tool: RemoteTool) -> bool:
        """Whether a tool that is held back was approved as it was before."""
        return self._approvals.approved_before(tool)

    def _rebuild(self) -> None:
        before = self._tools
        tools: dict[str, RemoteTool] = {}
        held: dict[str, RemoteTool] = {}
        clashes: dict[str, list[tuple[str, str]]] = {}
        disabled: dict[str, list[tuple[str, str]]] = {}
        for name, source in self._sources.items():
            if any(rival < name and not self._sources[rival].attempted.is_set() for rival in self._rivals(source)):
                continue  # whose names are whose must not depend on who starts faster
            for tool in source.tools:
                owner = self._owners.claim(tool.name, name)
                if owner != name:
                    state = ", which is held back" if tool.name in held else ""
                    reason = f"the name {tool.name} belongs to the upstream {owner}{state}, which had it first"
                    clashes.setdefault(name, []).append((tool.remote_name, reason))
                elif (glob := next((item for item in self._globs if fnmatchcase(tool.name, item)), None)) is not None:
                    disabled.setdefault(name, []).append((tool.remote_name, f"disabled_tools has {glob}"))
                elif source.settings.pin and not self._approvals.approves(tool):
                    held[tool.name] = tool
                else:
                    tools[tool.name] = tool
        self._owners.forget({(tool.name, name) for name, source in self._sources.items() for tool in source.tools})
        for name, found in clashes.items():
            for remote_name, reason in found:
                if (remote_name, reason) not in self._clashes.get(name, ()):
                    logger.warning("{} of the upstream {} is not served: {}", remote_name, name, reason)
        for tool in held.values():
            if tool.name not in self._held or self._held[tool.name].fingerprint != tool.fingerprint:
                state = "has changed since it was approved" if self.approved_before(tool) else "was never approved"
                logger.warning("{} of the upstream {} is held back: it {}", tool.name, tool.upstream, state)
        self._tools, self._held, self._clashes, self._disabled = tools, held, clashes, disabled
        if before.keys() != tools.keys() or any(before[name] is not tool for name, tool in tools.items()):
            self._merged = None
            self._on_change()

    def _rivals(self, source: UpstreamSource) -> Iterable[str]:
        return () if source.refusal else self._owners.rivals(source.name)

    async def _watch_approvals(self) -> None:
        while True:
            await anyio.sleep(APPROVALS_INTERVAL)
            if await self._look_at_approvals():
                self._rebuild()

    async def _look_at_approvals(self) -> bool:
        try:
            return await anyio.to_thread.run_sync(self._approvals.refresh)
        except SettingsError as exc:
            logger.error("{}", exc)
            return False


def _chosen(held: Mapping[str, RemoteTool], word: str, upstream: str) -> RemoteTool:
    """The tool that a name, or a name and a fingerprint, means."""
    if word in held:
        return held[word]
    name, _, fingerprint = word.rpartition("@")
    if name not in held:
        raise SettingsError(f"{upstream} has nothing held back by the name of {name or word}.")
    if held[name].fingerprint != fingerprint:
        raise SettingsError(
            f"Nothing was approved: {name} of {upstream} is not what you looked at; its fingerprint is "
            f"{held[name].fingerprint} now.",
            remedy="Look at it again (praxis-mcp upstreams list --json, with the same --config), then approve it by "
            "its fingerprint.",
        )
    return held[name]


MOST_OWNED = 4096
"""Names of one upstream that stay with it after it has ceased to list them; the oldest are forgotten."""
_WILDCARDS = frozenset("*?[")


def prefix_of(name: str, settings: UpstreamSettings) -> str:
    """What comes before each name of an upstream's tools."""
    return settings.prefix if settings.prefix is not None else f"{name}_"


def refusals(upstreams: Mapping[str, UpstreamSettings]) -> dict[str, str]:
    """The upstreams that could take names of others, and for each why it is not served and how to fix that."""
    prefixes = {name: prefix_of(name, settings) for name, settings in upstreams.items()}
    found: dict[str, str] = {}
    for name, prefix in sorted(prefixes.items()):
        for other, longer in sorted(prefixes.items()):
            if longer == prefix or not longer.startswith(prefix):
                continue
            if any(_may_begin_with(longer, names) for names in _names_here(prefix, upstreams[name])):
                found[name] = _sentence(name, prefix, other, longer)
                break
    return found


class Owners:
    """Which upstream has which name, where prefixes are equal.

    Args:
        prefixes: prefix of each upstream that is served.
    """

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._prefixes = prefixes
        self._owners: dict[str, str] = {}

    def claim(self, name: str, upstream: str) -> str:
        """The owner of a name that an upstream would like to have: itself, unless another has it already."""
        if not any(self.rivals(upstream)):
            return upstream
        return self._owners.setdefault(name, upstream)

    def rivals(self, upstream: str) -> Iterator[str]:
        """The other upstreams with its prefix, in the order of their names."""
        prefix = self._prefixes[upstream]
        return (name for name in sorted(self._prefixes) if name != upstream and self._prefixes[name] == prefix)

    def candidates(self, name: str) -> list[str]:
        """The upstreams that may have a tool of that name."""
        return [upstream for upstream, prefix in self._prefixes.items() if name.startswith(prefix)]

    def forget(self, listed: Collection[tuple[str, str]]) -> None:
        """Give up what is too much: of each upstream its oldest names that it does not list any more.

        Args:
            listed: name and upstream of every tool that is listed now.
        """
        unlisted: dict[str, list[str]] = {}
        for name, upstream in self._owners.items():
            if (name, upstream) not in listed:
                unlisted.setdefault(upstream, []).append(name)
        for names in unlisted.values():
            for name in names[: max(0, len(names) - MOST_OWNED)]:
                del self._owners[name]


def _names_here(prefix: str, settings: UpstreamSettings) -> Sequence[str]:
    """The names that an upstream can have here: each as it is, or up to its first wildcard and then a ``*``."""
    names = [prefix + new for new in settings.rename.values()]
    for glob in settings.include:
        fixed = next((glob[:place] + "*" for place, letter in enumerate(glob) if letter in _WILDCARDS), glob)
        if fixed.endswith("*") or fixed not in settings.rename:
            names.append(prefix + fixed)
    return names


def _may_begin_with(prefix: str, name: str) -> bool:
    if not name.endswith("*"):
        return name.startswith(prefix)
    fixed = name[:-1]
    return fixed.startswith(prefix) or prefix.startswith(fixed)


def _sentence(name: str, prefix: str, other: str, longer: str) -> str:
    begins = f"its prefix {prefix!r} begins {longer!r}," if prefix else f"it has no prefix, and {longer!r} is"
    return (
        f"It is not served: {begins} that of the upstream {other}, so it could take the names of that one's tools. "
        f"Give one of them another prefix (upstreams.{name}.prefix or upstreams.{other}.prefix), such as "
        f"{_other_prefix(name, longer)!r}, or list the tools that you need of it (upstreams.{name}.include: [NAME])."
    )


def _other_prefix(name: str, longer: str) -> str:
    letters = name.replace("_", "-")
    return next(word for word in (f"{letters}-", f"{letters}.", f"x-{letters}-") if not longer.startswith(word))
