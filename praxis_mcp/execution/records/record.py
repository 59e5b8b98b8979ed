"""One run as the process that runs it knows it: running or ended, its streams and its artifacts; and what its record
says of its arguments, where the settings ask for that."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread

from praxis_mcp.engines.base import Artifact, ExecutionResult
from praxis_mcp.engines.output import Captured, StreamName
from praxis_mcp.engines.phases import PhaseClock
from praxis_mcp.errors import RunNotFoundError
from praxis_mcp.execution.outcomes import LOST, RUNNING
from praxis_mcp.execution.records.row import NOTHING, About, StoredRun
from praxis_mcp.plans.secrets import MASK, Masker
from praxis_mcp.support.rooted import kept_size, open_kept

MOST_SHOWN = 8 * 1024
"""Characters of one call's arguments that are kept."""
IN_MEMORY = 64 * 1024
"""Bytes of a stream that a record keeps in memory; more is in its file."""


@dataclass(slots=True)
class RunRecord:
    """One run, running or ended.

    Attributes:
        run_id: its id.
        tool: name of the tool.
        engine: name of the engine.
        started: when the call came, in UTC: before it waited for a place and an engine.
        directory: where its files lie; None while it has none.
        caller: who called, and may read it; empty is anonymous.
        plan: what runs; empty for another server's tool.
        about: see `About`.
        result: how it ended; None while it runs, or when it failed.
        error: why it failed; None otherwise.
        streams: what is kept of its streams, once it has ended.
        choice: why that engine; empty for another server's tool.
        phases: the call's clock, which runs as long as the call does.
        outcome: see `StoredRun`.
        changes: what is kept of files that it changed, until that is in the store.
    """

    run_id: str
    tool: str
    engine: str
    started: datetime
    directory: Path | None
    caller: str = ""
    plan: str = "{}"
    about: About = NOTHING
    result: ExecutionResult | None = None
    error: str | None = None
    choice: str = ""
    phases: PhaseClock = field(default_factory=PhaseClock, repr=False)
    outcome: str = RUNNING
    changes: bytes | None = field(default=None, repr=False)
    streams: dict[StreamName, Captured] = field(default_factory=dict, repr=False)

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
        captured = self.streams.get(stream)
        return captured.file if captured else None

    def size(self, stream: StreamName) -> int:
        """Bytes of that stream that are kept.

        Raises:
            RunNotFoundError: its file is gone.
        """
        captured = self.streams.get(stream, Captured())
        with self._still_there(stream):
            return kept_size(captured.file) if captured.file else len(captured.data)

    async def read(self, stream: StreamName, offset: int = 0, limit: int | None = None) -> bytes:
        """Bytes of that stream, from `offset`, at most `limit`.

        Raises:
            RunNotFoundError: its file is gone.
        """
        captured = self.streams.get(stream, Captured())
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
            "choice": self.choice,
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


def kept_of(captured: Captured) -> Captured:
    """A stream as its record has it in memory."""
    return replace(captured, head=b"", tail=b"") if captured.file or len(captured.data) > IN_MEMORY else captured


def row_of(record: RunRecord, server: str, kept_at: str, max_stream: int, *, has_ended: bool = False) -> StoredRun:
    """A run for the store.

    Args:
        record: the run.
        server: id of this process there.
        kept_at: see `StoredRun`.
        max_stream: bytes of each stream that are kept.
        has_ended: whether it ends now.
    """
    about, result, streams = record.about, record.result, record.streams
    started = record.started.timestamp()
    facts: dict[str, Any] = {}
    files = 0
    if result is not None:
        files = sum(item.size for item in result.artifacts)
        files += sum(min(each.total, max_stream) for each in streams.values() if each.file is not None)
        facts = {
            "exit_code": result.exit_code,
            "isolation": result.isolation,
            "image": result.image,
            "artifacts": _json([{"name": item.name, "size": item.size} for item in result.artifacts]),
            "changed_files": _json([str(path) for path in result.changed_files]),
            "stdout_bytes": result.stdout.total,
            "stderr_bytes": result.stderr.total,
            "changes": record.changes,
            "stdout": streams["stdout"].data if streams["stdout"].file is None else None,
            "stderr": streams["stderr"].data if streams["stderr"].file is None else None,
        }
    row = StoredRun(
        id=record.run_id,
        server=server,
        tool=record.tool,
        engine=record.engine,
        caller=record.caller,
        client=about.client,
        root=about.root,
        contract=about.contract,
        contract_sha256=about.contract_sha256,
        started=started,
        # By the call's own clock: the machine's may have been set meanwhile.
        ended=started + sum(record.phases.seconds.values()) if has_ended else None,
        outcome=record.outcome,
        error=record.error,
        why=_json(about.passed_over),
        phases=_phases(record),
        plan=record.plan,
        arguments=about.arguments,
        choice=record.choice,
        kept_at=kept_at,
        **facts,
    )
    return row if result is None else replace(row, kept_bytes=row.weight + files)


def _json(items: Sequence[Any]) -> str:
    return json.dumps(items) if items else "[]"


def record_of(row: StoredRun, directory: Path) -> RunRecord:
    """A run as the store has it.

    Args:
        row: the run, with its streams.
        directory: where its files are, if it has any.
    """
    record = RunRecord(
        run_id=row.id,
        tool=row.tool,
        engine=row.engine,
        started=datetime.fromtimestamp(row.started, UTC),
        directory=directory,
        caller=row.caller,
        plan=row.plan,
        error=row.error,
        choice=row.choice,
        outcome=row.outcome,
    )
    facts = row.as_json()
    if row.outcome == LOST:
        record.error = "The server that ran it ended before it did."
    if row.ended is None or record.error is not None:
        return record
    streams: tuple[tuple[StreamName, bytes | None, int], ...] = (
        ("stdout", row.stdout, row.stdout_bytes),
        ("stderr", row.stderr, row.stderr_bytes),
    )
    record.streams = {
        name: Captured(data, total=total) if data is not None else Captured(total=total, file=directory / name)
        for name, data, total in streams
    }
    record.result = ExecutionResult(
        run_id=row.id,
        engine=row.engine,
        isolation=row.isolation,
        exit_code=row.exit_code,
        stdout=record.streams["stdout"],
        stderr=record.streams["stderr"],
        timed_out=row.outcome == "timed_out",
        out_of_memory=row.outcome == "out_of_memory",
        phases=facts["phases"],
        artifacts=tuple(
            Artifact(item["name"], directory / "artifacts" / item["name"], item["size"]) for item in facts["artifacts"]
        ),
        image=row.image,
    )
    return record


def _phases(record: RunRecord) -> str:
    phases = record.result.phases if record.result else record.phases.seconds
    return json.dumps({name: round(value, 6) for name, value in phases.items()})


def _read_range(file: Path, offset: int, limit: int | None) -> bytes:
    with open_kept(file) as stream:
        stream.seek(offset)
        return stream.read() if limit is None else stream.read(limit)


def masked_arguments(arguments: Mapping[str, Any], private: Collection[str], masker: Masker) -> str:
    """The arguments as JSON, cut where they are long.

    Args:
        private: names of parameters of which nothing is shown.
        masker: masks the call's secrets.
    """
    shown = {name: MASK if name in private else value for name, value in arguments.items()}
    text = json.dumps(masker.json(shown), ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"


def hashed_arguments(arguments: Mapping[str, Any], key: bytes) -> str:
    """A digest (HMAC-SHA-256) by which equal arguments are known, and nothing else."""
    text = json.dumps(arguments, sort_keys=True, default=str)
    return "hmac-sha256:" + hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def is_private(schema: object) -> bool:
    """Whether values of this schema are not for anyone to read (JSON Schema 2020-12, validation, 9.4 and 7.3)."""
    return isinstance(schema, Mapping) and (schema.get("writeOnly") is True or schema.get("format") == "password")


def began_at(phases: PhaseClock) -> datetime:
    """When a call came. It has waited for a place and an engine since, which is a part of how long it took."""
    return datetime.now(UTC) - timedelta(seconds=sum(phases.seconds.values()))
