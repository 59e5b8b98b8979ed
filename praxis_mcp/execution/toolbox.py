"""Everything that a process needs to run tools, opened and closed together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from praxis_mcp.contracts.catalog.approvals import ContractApprovals
from praxis_mcp.contracts.catalog.catalog import Catalog, CatalogChange
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult, StatusListener
from praxis_mcp.engines.output import OutputListener
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import PraxisError
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.execution.relays import RelayRunner
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.servers import ServerStatus, reap_periodically
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.federation.upstreams import Upstreams
from praxis_mcp.plans.model import Blueprint, Call, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import unwrapped
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.execution.locking.enforcing import Enforcement

MOST_REFUSED = 20
"""Tools that the log of a locked server names when it starts; the others are counted."""
_LONGEST_REFUSAL = 400


@dataclass(slots=True)
class Toolbox:
    """The parts: settings, catalog, engines, records, the runner over them, and tools of other servers."""

    settings: Settings
    catalog: Catalog
    engines: EngineRegistry
    records: RunRecords
    runner: ToolRunner
    _scanned: anyio.Event = field(default_factory=anyio.Event)
    upstreams: Upstreams = field(init=False)
    relays: RelayRunner = field(init=False)

    def __post_init__(self) -> None:
        self.upstreams = Upstreams(self.settings)
        self.relays = RelayRunner(self.upstreams, self.runner, self.records, self.settings)

    @property
    def is_loaded(self) -> bool:
        """Whether the catalog's first scan has ended."""
        return self._scanned.is_set()

    async def loaded(self) -> None:
        """Wait until the catalog's first scan has ended, where it runs in the background."""
        if not self._scanned.is_set():  # which would wait a round of the event loop all the same
            await self._scanned.wait()

    async def call(
        self,
        tool: str | ToolContract,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_output: OutputListener | None = None,
        on_status: StatusListener | None = None,
    ) -> ExecutionResult:
        """Run a tool to its end, on the engine that fits. Cancelling the call kills what it started.

        Args:
            tool: the name of a contract in the catalog, whose first scan is waited for; or a contract itself, built in
                code.
            arguments: what the caller gives.
            on_output: receives output as it arrives, secrets masked. Must not block.
            on_status: is called with what the engine is busy with. Must not block.

        Raises:
            UnknownToolError: the catalog has no tool of that name.
            ArgumentError: the arguments do not fit.
            ContractError, SettingsError: contract or settings keep it from running.
            ExecutionError: it could not be run; see the subclasses. A command that fails is a result.
        """
        if isinstance(tool, ToolContract):
            return await self.runner.run(tool, arguments or {}, on_output=on_output, on_status=on_status)
        await self.loaded()
        return await self.runner.call(tool, arguments or {}, on_output=on_output, on_status=on_status)

    async def watch(self, on_change: Callable[[CatalogChange], Awaitable[None]]) -> None:
        """Keep the catalog up to date until cancelled; nothing waits for calls of a changed or removed contract.

        Args:
            on_change: see `Catalog.watch`.
        """

        async def changed(change: CatalogChange) -> None:
            self.engines.retire({*change.changed, *change.removed})
            await on_change(change)

        await self.loaded()
        await self.catalog.watch(changed)

    async def prefetch(self) -> None:
        """Pull or build the images that the engines lack, one after another; what fails is logged, and fails its call
        later."""
        await self.loaded()
        seen: set[str] = set()
        for entry in self.catalog.entries():
            # From the traits first: a thousand contracts of one image need not all be built to find that out.
            if not entry.traits.is_built:
                if entry.traits.image is None or entry.traits.image in seen:
                    continue
                seen.add(entry.traits.image)
            try:
                blueprint = await self.runner.plan_image(entry.contract)
                if not (blueprint.image or "").startswith("sha256:"):  # no registry knows an image by its id
                    await self._prepare(blueprint)
            except PraxisError as exc:
                logger.info("{} is not ready yet: {}", entry.name, exc)

    async def report_refused(self) -> None:
        """Log which tools are not as they were locked, so that their calls are refused, and why: the contracts, then
        what upstreams have once each has been asked for its tools. Nothing where no lock counts."""
        if self.runner.lock is None:
            return
        refused = 0
        async for why in self._refusals(self.runner.lock):
            refused += 1
            if refused <= MOST_REFUSED:
                logger.warning("{}", why if len(why) <= _LONGEST_REFUSAL else f"{why[:_LONGEST_REFUSAL]}…")
        if refused:
            logger.warning(
                "{} refused. Look at what has changed (praxis-mcp lock --check), lock it (praxis-mcp lock), and start "
                "this server again.",
                counted(refused, "tool is", "tools are"),
            )
        else:
            logger.info("every tool is as it was locked")

    async def _refusals(self, lock: Enforcement) -> AsyncIterator[str]:
        await self.loaded()
        for entry in self.catalog.entries():
            try:
                await self.runner.plan_image(entry.contract)
            except PraxisError as exc:
                yield exc.message
        await self.upstreams.wait_attempted()
        for entry in self.upstreams.merged_with(self.catalog.entries()):
            if isinstance(entry, RemoteTool):
                try:
                    lock.check_remote(entry)
                except PraxisError as exc:
                    yield exc.message

    async def reap_periodically(self) -> None:
        """Remove what killed servers left behind, now and every minute, until cancelled."""
        self.records.look_after()
        if (shared := self.runner.callers.shared) is not None:
            shared.open()
        await reap_periodically(self.engines, self.runner.selector)

    async def keep_status(self) -> None:
        """Let `praxis-mcp doctor` know of this server, until cancelled."""
        await ServerStatus(self.settings, self.engines, self.runner.tally).keep()

    async def _prepare(self, blueprint: Blueprint) -> None:
        decision = await self.runner.selector.decide(Plan(blueprint, Call(run_id="")))
        if decision.engine is not None:
            await self.engines.get(decision.engine).prepare(blueprint)

    async def scan(self) -> None:
        """Read the contracts for the first time; done by `open_toolbox`."""
        try:
            await self.catalog.load()
        finally:
            self._scanned.set()
        tools, findings = len(self.catalog.entries()), self.catalog.diagnostics
        logger.info("{} in {}", counted(tools, "tool"), ", ".join(str(path) for path in self.settings.tool_directories))
        for finding in findings:
            logger.log("ERROR" if finding.is_error else "WARNING", "{}", finding)


@asynccontextmanager
async def open_toolbox(
    settings: Settings | None = None, *, scan_in_background: bool = False, keep_records: bool | None = None
) -> AsyncIterator[Toolbox]:
    """A toolbox whose catalog has been scanned; engines are made when first needed.

    Args:
        settings: such as ``Settings(tools=(Path("my-tools"),))`` or `load_settings()`; None is the defaults and the
            environment's ``PRAXIS_…``.
        scan_in_background: do not wait for the catalog's first scan: until `Toolbox.loaded` returns, the catalog is
            empty. For servers, which answer clients before.
        keep_records: whether runs are recorded in the store that outlives the process, as `praxis-mcp serve` and
            `call` do, unless ``records.enabled`` is False; None is whether the settings name its directory.

    Raises:
        SettingsError: the directory for run records cannot be made.
    """
    settings = settings or Settings()
    approvals = ContractApprovals() if settings.reload == "approved" else None
    catalog = Catalog(settings.tool_directories, approvals=approvals, disabled=settings.disabled_tools)
    if keep_records is None:
        keep_records = settings.records.directory is not None
    place = settings.records.place if keep_records and settings.records.enabled else None
    store = RecordStore(place, settings.records) if place is not None else None
    async with EngineRegistry(settings) as engines, RunRecords(settings.records, store) as records:
        toolbox = Toolbox(settings, catalog, engines, records, ToolRunner(catalog, engines, records, settings))
        # The caller must see their own exception.
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                if scan_in_background:
                    tasks.start_soon(toolbox.scan)
                else:
                    await toolbox.scan()
                yield toolbox
                tasks.cancel_scope.cancel()
