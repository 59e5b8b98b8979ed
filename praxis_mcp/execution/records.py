"""What is kept of runs: who ran, how it ended, and the whole of what it wrote; one directory a run, swept of what ended
servers and killed ones left."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import Artifact, ExecutionResult
from praxis_mcp.engines.output import Captured, StreamName
from praxis_mcp.engines.phases import PhaseClock
from praxis_mcp.errors import ExecutionError, RunNotFoundError, SettingsError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.sections import RecordSettings
from praxis_mcp.support.installation import OWN_ENGINES
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import Scratch, remove_directory, sweep_scratch

SUMMARY = "record.json"
"""The file that says a run has ended, in a directory that outlives the server."""
_PREFIX = "praxis-mcp-runs-"
_ABANDONED = 2 * 86_400.0
"""Seconds after which a run without a summary was left by a killed server: twice the longest timeout there is."""


class RecordStore:
    """The directory of one server's records.

    A temporary one is locked for as long as the server lives; the kernel lets go of the lock when the server is
    killed, and so the next server knows which directories nobody needs. One that the settings name is shared by
    servers and outlives them; ended runs beyond `keep` are removed from it, whichever server ran them.
    """

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._root: Path | None = None
        self._scratch: Scratch | None = None

    @property
    def is_lasting(self) -> bool:
        """Whether records outlive the server."""
        return self._settings.directory is not None

    def open(self) -> None:
        """Make the directory, and sweep what killed servers left.

        Raises:
            OSError: it cannot be made.
        """
        if self._settings.directory is not None:
            self._root = self._settings.directory.expanduser().absolute()
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        self._scratch = Scratch.make(_PREFIX)
        self._root = self._scratch.path
        sweep_scratch(_PREFIX, _remove_left)

    def place(self, run_id: str) -> Path:
        """Where the directory of a run is, or is to be."""
        assert self._root is not None, "records are used inside `async with`"
        return self._root / run_id

    def make(self, run_id: str) -> Path:
        """The directory of a new run.

        Raises:
            OSError: it cannot be made.
        """
        directory = self.place(run_id)
        # A cleaner of temporary files may have taken the root from under a server that has been idle for days.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        return directory

    def remove(self, directory: Path) -> None:
        """Remove a run's directory; what cannot be removed is logged."""
        remove_directory(directory)

    def save(self, directory: Path, summary: str) -> None:
        """Write what there is to say about an ended run, and trim.

        Raises:
            OSError: it cannot be written.
        """
        (directory / SUMMARY).write_text(summary, encoding="utf-8")
        self.trim()

    def trim(self) -> None:
        """Remove the oldest ended runs beyond `keep` from a directory that servers share."""
        if not self.is_lasting or self._root is None:
            return
        ended: list[tuple[float, Path]] = []
        for directory in self._root.iterdir():
            try:
                ended.append(((directory / SUMMARY).stat().st_mtime, directory))
            except NotADirectoryError:
                continue
            except FileNotFoundError:
                if directory.is_dir() and time.time() - directory.stat().st_mtime > _ABANDONED:
                    remove_directory(directory)
        ended.sort()
        for _, directory in ended[: max(0, len(ended) - self._settings.keep)]:
            remove_directory(directory)

    def close(self) -> None:
        """Remove a temporary directory."""
        if not self.is_lasting and self._root is not None:
            remove_directory(self._root)
        if self._scratch is not None:
            self._scratch.release()
            self._scratch = None


def _remove_left(directory: Path) -> None:
    logger.debug("removing records that a killed server left: {}", directory)
    remove_directory(directory)


_IN_MEMORY = 64 * 1024
"""Bytes of a stream that a record keeps in memory; more is in its file."""


@dataclass(slots=True)
class RunRecord:
    """One run, running or ended.

    Attributes:
        run_id: its id.
        tool: name of the tool.
        engine: name of the engine.
        started: when, in UTC.
        directory: where its files lie; None while it has none.
        caller: who called, and may read it; empty is anonymous.
        result: how it ended; None while it runs, or when it failed.
        error: why it failed; None otherwise.
        phases: the call's clock, which runs as long as the call does.
    """

    run_id: str
    tool: str
    engine: str
    started: datetime
    directory: Path | None
    caller: str = ""
    result: ExecutionResult | None = None
    error: str | None = None
    phases: PhaseClock = field(default_factory=PhaseClock, repr=False)
    _streams: dict[StreamName, Captured] = field(default_factory=dict, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.result is None and self.error is None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files it left as results."""
        return self.result.artifacts if self.result else ()

    def path(self, stream: StreamName) -> Path | None:
        """The file that holds the whole stream, where it was long enough to need one."""
        captured = self._streams.get(stream)
        return captured.file if captured else None

    def size(self, stream: StreamName) -> int:
        """Bytes of that stream that are kept.

        Raises:
            RunNotFoundError: its file is gone.
        """
        captured = self._streams.get(stream, Captured())
        with self._still_there(stream):
            return captured.file.stat().st_size if captured.file else len(captured.data)

    async def read(self, stream: StreamName, offset: int = 0, limit: int | None = None) -> bytes:
        """Bytes of that stream, from `offset`, at most `limit`.

        Raises:
            RunNotFoundError: its file is gone.
        """
        captured = self._streams.get(stream, Captured())
        if captured.file is None:
            end = None if limit is None else offset + limit
            return captured.data[offset:end]
        with self._still_there(stream):
            return await anyio.to_thread.run_sync(_read_range, captured.file, offset, limit)

    @contextmanager
    def _still_there(self, stream: StreamName) -> Iterator[None]:
        # A cleaner of temporary files takes what has not been read for days; another server trims a shared directory.
        # A client need not know where the file was.
        try:
            yield
        except OSError as exc:
            raise RunNotFoundError(f"The {stream} of run {self.run_id} is no longer kept.") from exc

    def summary(self) -> dict[str, Any]:
        """What there is to say about it, without anything the tool was given or wrote."""
        result = self.result
        phases = result.phases if result else self.phases.seconds
        return {
            "run_id": self.run_id,
            "tool": self.tool,
            "engine": self.engine,
            "started": self.started.isoformat(),
            "caller": self.caller,
            "running": self.is_running,
            "error": self.error,
            "exit_code": result.exit_code if result else None,
            "timed_out": result.timed_out if result else False,
            "out_of_memory": result.out_of_memory if result else False,
            "seconds": {name: round(value, 6) for name, value in phases.items()},
            "stdout_bytes": result.stdout.total if result else None,
            "stderr_bytes": result.stderr.total if result else None,
            "artifacts": [{"name": item.name, "size": item.size} for item in self.artifacts],
            "image": result.image if result else None,
        }


class RunRecords:
    """The records of one process, newest kept; an async context manager that owns their directory."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._store = RecordStore(settings)
        self._records: dict[str, RunRecord] = {}
        self._making = threading.Lock()

    async def start(self, plan: Plan, engine: str, caller: str = "") -> RunRecord:
        """A record for a run that begins now; the oldest ended ones give way.

        Its directory is made at once where something is sure to be put there, or where an engine of another package
        may expect it; else see `make_directory`.

        Raises:
            ExecutionError: the directory cannot be made.
        """
        run_id = plan.call.run_id
        needed = self._store.is_lasting or plan.blueprint.artifact_dir is not None or engine not in OWN_ENGINES
        if not needed:
            return await self.start_relayed(run_id, plan.blueprint.tool, engine, caller)
        # Broken off between the two, the call would leave directories that nobody knows. One visit to a thread for all.
        record = RunRecord(run_id, plan.blueprint.tool, engine, datetime.now(UTC), None, caller)
        with _translated(), anyio.CancelScope(shield=True):
            record.directory = await anyio.to_thread.run_sync(self._make, run_id, self._leaving())
        self._records[run_id] = record
        return record

    async def start_relayed(self, run_id: str, tool: str, engine: str, caller: str = "") -> RunRecord:
        """A record for a call that another server answers; a directory is made for it when something is to be put
        there, because making one takes as long as passing such a call on."""
        record = RunRecord(run_id, tool, engine, datetime.now(UTC), None, caller)
        self._records[run_id] = record
        if leaving := self._leaving():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._remove, leaving)
        return record

    def place_of(self, record: RunRecord) -> Path:
        """Where its directory is, or is to be."""
        return record.directory or self._store.place(record.run_id)

    def make_directory(self, record: RunRecord) -> Path:
        """The directory of a run, made where it has none. Blocks.

        Raises:
            OSError: it cannot be made.
        """
        with self._making:  # both streams of a run may come to need it at once
            if record.directory is None:
                record.directory = self._store.make(record.run_id)
        return record.directory

    async def directory_of(self, record: RunRecord) -> Path:
        """As `make_directory`, but never blocks the event loop.

        Raises:
            ExecutionError: it cannot be made.
        """
        if record.directory is None:
            with _translated():
                return await anyio.to_thread.run_sync(self.make_directory, record)
        return record.directory

    async def finish(self, record: RunRecord, result: ExecutionResult) -> ExecutionResult:
        """The run ended; returns the result as it is kept.

        Raises:
            ExecutionError: what it wrote cannot be kept.
        """
        streams: dict[StreamName, Captured] = {"stdout": result.stdout, "stderr": result.stderr}
        with _translated():
            for name, captured in streams.items():
                if captured.file is None and len(captured.data) > _IN_MEMORY:
                    file = await self.directory_of(record) / name
                    await anyio.to_thread.run_sync(file.write_bytes, captured.data)
                    streams[name] = replace(captured, file=file)
        record._streams = {name: _without_bytes(captured) for name, captured in streams.items()}
        # Not what a remote tool answered: a hundred answers of many megabytes each are nothing to keep in memory.
        record.result = replace(result, stdout=record._streams["stdout"], stderr=record._streams["stderr"], remote=None)
        await self._save(record)
        return replace(result, stdout=streams["stdout"], stderr=streams["stderr"])

    async def fail(self, record: RunRecord, error: str) -> None:
        """The run failed."""
        record.error = error
        await self._save(record)

    @asynccontextmanager
    async def watched(self, record: RunRecord) -> AsyncIterator[None]:
        """Around all that happens between the beginning of a run and its end: whatever breaks the body off, a
        cancellation as well, ends the record too."""
        try:
            yield
        except ExecutionError as exc:
            await self.fail(record, str(exc))
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.fail(record, "cancelled or broken off")
            raise

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

    def entries(self) -> tuple[RunRecord, ...]:
        """All records, newest first."""
        return tuple(reversed(self._records.values()))

    def _leaving(self) -> list[Path]:
        """The oldest ended runs beyond `keep` give way; the directories that they leave."""
        ended = [record for record in self._records.values() if not record.is_running]
        leaving = ended[: max(0, len(ended) - self._settings.keep)]
        for record in leaving:  # now: while they are removed from disk, another call looks for who has to leave
            del self._records[record.run_id]
        return [record.directory for record in leaving if record.directory is not None]

    def _make(self, run_id: str, leaving: list[Path]) -> Path:
        try:
            return self._store.make(run_id)
        finally:
            self._remove(leaving)

    def _remove(self, directories: list[Path]) -> None:
        for directory in directories:
            self._store.remove(directory)

    async def _save(self, record: RunRecord) -> None:
        if not self._store.is_lasting:
            return
        text = json.dumps(record.summary(), indent=1)
        try:
            directory = await self.directory_of(record)
            await anyio.to_thread.run_sync(self._store.save, directory, text)
        except (OSError, ExecutionError) as exc:
            logger.warning("the record of run {} could not be written: {}", record.run_id, exc)

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self._store.open)
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
            await anyio.to_thread.run_sync(self._store.close)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ExecutionError(
            f"The records of this run cannot be written: {exc.strerror}: {exc.filename}.",
            remedy="Free space where records.directory (or TMPDIR) is, or name another place.",
        ) from exc


def _without_bytes(captured: Captured) -> Captured:
    return replace(captured, head=b"", tail=b"") if captured.file else captured


def _read_range(file: Path, offset: int, limit: int | None) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read() if limit is None else stream.read(limit)
