"""The records of one process: each call begins one and ends it, and the newest can be read as resources."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import anyio.to_thread

from praxis_mcp.contracts.model import ToolParameter
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.changes import ChangeKeeper
from praxis_mcp.engines.output import Captured, OutputListener, StreamName
from praxis_mcp.engines.phases import PhaseClock
from praxis_mcp.errors import ExecutionError, RecordsUnavailable, RunCancelled, RunNotFoundError, SettingsError
from praxis_mcp.execution.outcomes import outcome_of
from praxis_mcp.execution.records.audit import line_of
from praxis_mcp.execution.records.changes import packed_changes
from praxis_mcp.execution.records.files import RunFiles, making_files
from praxis_mcp.execution.records.record import (
    IN_MEMORY,
    RunRecord,
    began_at,
    hashed_arguments,
    is_private,
    kept_of,
    masked_arguments,
    record_of,
    row_of,
)
from praxis_mcp.execution.records.row import NOTHING, About, StoredRun, plan_text, storable_name
from praxis_mcp.execution.records.shared_runs import SharedRuns
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.plans.model import Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.sections import RecordSettings
from praxis_mcp.support.installation import OWN_ENGINES
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import remove_directory
from praxis_mcp.support.workers import compute, size_of_json

_REMOVED_WITHIN = 5.0
"""Seconds that a call which failed waits for its files to be removed: a tool may have left a million."""


class RunRecords:
    """The records of one process, newest kept; an async context manager that owns their directory.

    Args:
        settings: how much is kept.
        store: where they go in addition, to outlive this process; None where they do not.
    """

    def __init__(self, settings: RecordSettings, store: RecordStore | None = None) -> None:
        self._settings = settings
        self._store = store
        self._shared = SharedRuns(store, settings.max_shared) if store is not None and store.is_shared else None
        self._files = RunFiles(store)
        self._records: dict[str, RunRecord] = {}
        self._running: set[str] = set()  # those that `is_running`
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._making = threading.Lock()
        self.changes = ChangeKeeper(settings.changes if store is not None else "none")

    async def start(
        self, plan: Plan, engine: str, caller: str = "", about: About = NOTHING, phases: PhaseClock | None = None
    ) -> RunRecord:
        """A record for a run that begins now; the oldest ended ones give way.

        Its directory is made at once where something is sure to be put there, or where an engine of another package
        may expect it; else see `make_directory`.

        Args:
            plan, engine, caller, about: what runs, where, for whom, and what else is said of it.
            phases: the call's clock; the record starts where that did. None starts one now.

        Raises:
            ExecutionError: the directory cannot be made.
        """
        run_id = plan.call.run_id
        text = plan_text(plan.blueprint) if self._store is not None else "{}"
        phases = phases or PhaseClock()
        began = began_at(phases)
        record = RunRecord(run_id, plan.blueprint.tool, engine, began, None, caller, text, about, phases=phases)
        if plan.blueprint.artifact_dir is None and engine in OWN_ENGINES:
            return await self._start(record)
        # Broken off between the two, the call would leave directories that nobody knows. One visit to a thread for all.
        with making_files(), anyio.CancelScope(shield=True):
            record.directory = await anyio.to_thread.run_sync(self._make, run_id, self._leaving())
        self._begun(record)
        return record

    async def start_relayed(
        self,
        run_id: str,
        tool: str,
        engine: str,
        caller: str = "",
        about: About = NOTHING,
        phases: PhaseClock | None = None,
    ) -> RunRecord:
        """A record for a call that another server answers; a directory is made for it when something is to be put
        there, because making one takes as long as passing such a call on. `phases`: as for `start`."""
        phases = phases or PhaseClock()
        record = RunRecord(run_id, tool, engine, began_at(phases), None, caller, about=about, phases=phases)
        return await self._start(record)

    async def refuse(self, plan: Plan, caller: str, about: About, phases: PhaseClock, error: str) -> None:
        """A record of a call that no engine can carry out. Where there is no store, none: nobody could read it."""
        if self._store is not None:
            tool, text = plan.blueprint.tool, plan_text(plan.blueprint)
            record = RunRecord(plan.call.run_id, tool, "", began_at(phases), None, caller, text, about, phases=phases)
            record.error = error
            await self._ended(record, "error")

    async def arguments(self, plan: Plan, parameters: Sequence[ToolParameter]) -> str | None:
        """A call's arguments as the settings ask for them."""
        if self._store is None or self._settings.arguments == "none":
            return None
        private = {item.name for item in parameters if is_private(item.keywords)}
        return await self._shown(plan.call.arguments, private, Masker(plan.call.secrets))

    async def relayed_arguments(self, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
        """As `arguments`, of a call that another server answers."""
        if self._store is None or self._settings.arguments == "none":
            return None
        properties = schema.get("properties")
        named = properties if isinstance(properties, Mapping) else {}
        private = {name for name, part in named.items() if is_private(part)}
        return await self._shown(arguments, private, Masker(()))

    async def _shown(self, arguments: Mapping[str, Any], private: Collection[str], masker: Masker) -> str | None:
        assert self._store is not None
        if self._settings.arguments == "masked":
            return await compute(masked_arguments, arguments, private, masker, size=size_of_json(arguments))
        key = await anyio.to_thread.run_sync(self._store.key)
        size = size_of_json(arguments)
        return await compute(hashed_arguments, arguments, key, size=size) if key is not None else None

    async def _start(self, record: RunRecord) -> RunRecord:
        self._begun(record)
        if leaving := self._leaving():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._remove, leaving)
        return record

    def refused(self, tool: str, caller: str, outcome: str, seconds: float = 0.0, client: str = "") -> None:
        """A call has ended without a run: a line of the audit trail.

        Args:
            tool: the name that was called, whether or not there is such a tool.
            caller, client: who called.
            outcome: see `log_call`.
            seconds: from the call to its end.
        """
        if self._store is not None:
            now = datetime.now(UTC).timestamp()
            run = StoredRun(
                id="",
                server=self._store.server,
                tool=tool[:128],
                engine="",
                caller=caller,
                client=client,
                root="",
                contract="",
                contract_sha256="",
                started=now - seconds,
                ended=now,
                outcome=outcome,
            )
            self._store.writer.put_line(line_of(run))

    def listener(self, record: RunRecord, on_output: OutputListener | None) -> OutputListener | None:
        """What is called with the output of a run: `on_output`, if any, and the store, so that others can follow the
        run."""
        store = self._store
        # Dagger reports output of a run that goes on by a stream of its own, which is opened only for a listener.
        if store is None or (on_output is None and record.engine == "dagger"):
            return on_output

        def hear(stream: StreamName, data: bytes) -> None:
            store.writer.put_output(record.run_id, stream, data)
            if on_output is not None:
                on_output(stream, data)

        return hear

    def place_of(self, record: RunRecord) -> Path:
        """Where its directory is, or is to be."""
        return record.directory or self._files.place(record.run_id)

    def make_directory(self, record: RunRecord) -> Path:
        """The directory of a run, made where it has none. Blocks.

        Raises:
            OSError: it cannot be made.
        """
        with self._making:  # both streams of a run may come to need it at once
            if record.directory is None:
                record.directory = self._files.make(record.run_id)
        return record.directory

    async def directory_of(self, record: RunRecord) -> Path:
        """As `make_directory`, but never blocks the event loop.

        Raises:
            ExecutionError: it cannot be made.
        """
        if record.directory is None:
            with making_files():
                return await anyio.to_thread.run_sync(self.make_directory, record)
        return record.directory

    async def finish(self, record: RunRecord, result: ExecutionResult) -> ExecutionResult:
        """The run ended; returns the result as it is kept."""
        scope = self._scopes.pop(record.run_id, None)  # from here on it can no longer be cancelled
        if scope is not None and scope.cancel_called:
            await anyio.lowlevel.checkpoint()
        streams: dict[StreamName, Captured] = {"stdout": result.stdout, "stderr": result.stderr}
        for name, captured in streams.items():
            if captured.file is None and len(captured.data) > IN_MEMORY:
                try:
                    file = await self.directory_of(record) / name
                    await anyio.to_thread.run_sync(file.write_bytes, captured.data)
                except (OSError, ExecutionError) as exc:
                    # The caller gets all of it with the answer, which must not be lost with the record.
                    logger.warning("the {} of run {} is not kept: {}", name, record.run_id, exc)
                    continue
                streams[name] = replace(captured, file=file)
        record.streams = {name: kept_of(captured) for name, captured in streams.items()}
        # Not what a remote tool answered: a hundred of many megabytes are nothing for memory, as files are not.
        record.changes = await packed_changes(result.changes) if self._store is not None else None
        record.result = replace(result, **record.streams, remote=None, changes=())
        self._running.discard(record.run_id)
        if self._shared is not None:
            await self._shared.share(record)
        await self._ended(record, outcome_of(result))
        record.changes = None
        if streams["stdout"] is result.stdout and streams["stderr"] is result.stderr:
            return result
        return replace(result, stdout=streams["stdout"], stderr=streams["stderr"])

    async def fail(self, record: RunRecord, error: str, outcome: str = "error") -> None:
        """The run failed. What it has left in its directory goes, which nothing names and no bound counts."""
        record.error = error
        self._running.discard(record.run_id)
        if record.directory is not None:
            directory, record.directory = record.directory, None
            # What is not gone by then goes on going; the store removes the rest with the run.
            with anyio.move_on_after(_REMOVED_WITHIN, shield=True):
                await anyio.to_thread.run_sync(remove_directory, directory, abandon_on_cancel=True)
        await self._ended(record, outcome)

    @asynccontextmanager
    async def watched(self, record: RunRecord) -> AsyncIterator[None]:
        """Around all that happens between the beginning of a run and its end: whatever breaks the body off, a
        cancellation as well, ends the record too.

        Raises:
            RunCancelled: `cancel` has ended the run.
        """
        try:
            with anyio.CancelScope() as scope:
                self._scopes[record.run_id] = scope
                try:
                    yield
                finally:
                    self._scopes.pop(record.run_id, None)
            if scope.cancelled_caught:
                raise RunCancelled(f"Somebody has cancelled this run of {record.tool}.")
        except RunCancelled as exc:
            await self.fail(record, exc.message, "cancelled")
            raise
        except ExecutionError as exc:
            await self.fail(record, str(exc))
            raise
        except BaseException as exc:
            if record.is_running:  # else the caller left while the end was being written
                outcome = "cancelled" if isinstance(exc, anyio.get_cancelled_exc_class()) else "error"
                with anyio.CancelScope(shield=True):
                    await self.fail(record, "cancelled or broken off", outcome)
            raise

    @property
    def store(self) -> RecordStore | None:
        """Where they go in addition, to outlive this process."""
        return self._store

    @property
    def server(self) -> str:
        """Id of this process in the store; empty where there is no store."""
        return self._store.server if self._store is not None else ""

    def cancel(self, run_id: str) -> bool:
        """End a run of this process, of any caller: its call fails with `RunCancelled`. Whether it was going on."""
        scope = self._scopes.get(run_id)
        if scope is not None:
            scope.cancel()
        return scope is not None

    def get(self, run_id: str, caller: str = "") -> RunRecord:
        """The record of that run of a caller.

        Raises:
            RunNotFoundError: they have none (any more).
        """
        record = self._records.get(run_id)
        if record is None or record.caller != caller:
            raise RunNotFoundError(
                f'No run "{run_id[:64]}" is kept.', remedy=f"Only the last {self._settings.keep} are (records.keep)."
            )
        return record

    async def find(self, run_id: str, caller: str = "") -> RunRecord:
        """As `get`, of runs of other processes on the same store too, and of earlier ones.

        Raises:
            RunNotFoundError: they have none (any more).
        """
        try:
            return self.get(run_id, caller)
        except RunNotFoundError:
            store = self._store
            if store is None:
                raise
            try:
                row = await store.access.run(lambda database: database.find(run_id))
            except RecordsUnavailable as exc:
                logger.warning("a run could not be looked up: {}", exc)
                raise
            if row is None or row.caller != storable_name(caller):
                raise RunNotFoundError(f'No run "{run_id[:64]}" of yours is kept.') from None
            if self._shared is not None:
                await self._shared.bring(row)
            return record_of(row, store.files / row.id)

    async def newest(self, caller: str, root: str, limit: int) -> list[RunRecord]:
        """The newest runs of a caller: of this process; of a caller with a name also those of servers that share the
        database.

        Args:
            caller: whose; empty is anonymous.
            root: the project.
            limit: how many at most.
        """
        found: dict[str, RunRecord] = {}
        if self._shared is not None and caller:
            found = {record.run_id: record for record in await self._shared.newest(caller, root, limit)}
        found |= {record.run_id: record for record in self.entries() if record.caller == caller}
        return sorted(found.values(), key=lambda record: record.started, reverse=True)[:limit]

    def entries(self) -> tuple[RunRecord, ...]:
        """All records, newest first."""
        return tuple(reversed(self._records.values()))

    def _leaving(self) -> list[Path]:
        """The oldest ended runs beyond `keep` give way; the directories that they leave."""
        beyond = len(self._records) - len(self._running) - self._settings.keep
        if beyond <= 0:
            return []
        leaving = list(islice((each for each in self._records.values() if not each.is_running), beyond))
        for record in leaving:  # now: while they are removed from disk, another call looks for who has to leave
            del self._records[record.run_id]
        if self._files.is_lasting:
            return []
        return [record.directory for record in leaving if record.directory is not None]

    def _make(self, run_id: str, leaving: list[Path]) -> Path:
        try:
            return self._files.make(run_id)
        finally:
            self._remove(leaving)

    def _remove(self, directories: list[Path]) -> None:
        for directory in directories:
            remove_directory(directory)

    def look_after(self) -> None:
        """Have the store looked through from now on, though no run has begun yet: for what killed servers left, and
        what exceeds its bounds."""
        if self._store is not None:
            self._store.writer.wake()

    def update(self, record: RunRecord) -> None:
        """Have what is known of a run that goes on written again: another engine runs it, say."""
        if self._store is not None:
            row = partial(row_of, record, self._store.server, self._store.kept_at, self._settings.max_stream)
            self._store.writer.put_begun(record.run_id, row)

    def _begun(self, record: RunRecord) -> None:
        self._records[record.run_id] = record
        self._running.add(record.run_id)
        self.update(record)

    async def _ended(self, record: RunRecord, outcome: str) -> None:
        record.outcome = outcome
        if (store := self._store) is None:
            return
        row = row_of(record, store.server, store.kept_at, self._settings.max_stream, has_ended=True)
        if row.kept_bytes > self._settings.max_bytes:
            logger.warning("the files of run {} exceed records.max_bytes; it is not kept", record.run_id)
        written = store.writer.put(row, wait=True)
        if written is not None:
            with anyio.move_on_after(store.writer.patience) as scope:
                await written
            if scope.cancelled_caught:
                store.writer.was_late()

    async def __aenter__(self) -> Self:
        try:
            try:
                await anyio.to_thread.run_sync(self._files.open)
            except OSError as exc:
                if self._store is None or self._settings.directory is not None:
                    raise
                logger.warning("runs are not recorded: {} cannot be used: {}", self._store.directory, exc.strerror)
                self._store, self._shared, self._files = None, None, RunFiles(None)
                await anyio.to_thread.run_sync(self._files.open)
        except OSError as exc:
            raise SettingsError(
                f"The directory for run records cannot be made: {exc.strerror}: {exc.filename}.",
                remedy="Fix records.directory in the settings, or TMPDIR.",
            ) from exc
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._files.close()
