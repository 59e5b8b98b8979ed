"""One run as the store keeps it: plain values, one for each column of the table `runs`."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from praxis_mcp.plans.model import Blueprint

RUNNING = "running"
LOST = "lost"
"""The outcome of a run whose server died before the run ended."""


@dataclass(frozen=True, slots=True)
class About:
    """What a record says of a call besides its plan and its end.

    Attributes:
        client: name and version of the program that called, as it gives them.
        root: the project of the server.
        contract: the file that the contract was read from; empty for one that was built in code.
        contract_sha256: of the contract, in hexadecimal.
        passed_over: the engines that would have come first, each with the reason against it.
        arguments: as the settings ask for them (`records.arguments`); None where they do not.
    """

    client: str = ""
    root: str = ""
    contract: str = ""
    contract_sha256: str = ""
    passed_over: tuple[tuple[str, str], ...] = ()
    arguments: str | None = None


NOTHING = About()


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A row.

    Attributes:
        id: of the run.
        server: id of the process that ran it.
        tool, engine, isolation, image, exit_code, stdout_bytes, stderr_bytes: see `ExecutionResult`.
        caller: who called; empty is anonymous.
        client, root, contract, contract_sha256, arguments: see `About`.
        started, ended: when the call came, and when it ended, in seconds since 1970 (UTC); None while it runs.
        outcome: as in `CallTally`; or ``running``; or ``lost``, where its server died before it ended.
        error: why it failed, in the words that the caller got.
        why: JSON: the engines that were passed over, and why.
        plan: JSON: what ran, without the call's own words, variables and files.
        phases: JSON: seconds by phase.
        artifacts: JSON: name and size of each file that it left as a result.
        changed_files: JSON: paths.
        kept_bytes: what it takes up, files of its directory included.
        stdout, stderr: the streams, where they are short; else they are files in its directory.
    """

    id: str
    server: str
    tool: str
    engine: str
    caller: str
    client: str
    root: str
    contract: str
    contract_sha256: str
    started: float
    ended: float | None = None
    outcome: str = RUNNING
    exit_code: int | None = None
    error: str | None = None
    isolation: str = ""
    image: str | None = None
    why: str = "[]"
    plan: str = "{}"
    arguments: str | None = None
    phases: str = "{}"
    artifacts: str = "[]"
    changed_files: str = "[]"
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    kept_bytes: int = 0
    stdout: bytes | None = None
    stderr: bytes | None = None

    @property
    def weight(self) -> int:
        """About how many bytes it takes up in memory and in the database."""
        texts = (self.error, self.why, self.plan, self.arguments, self.phases, self.artifacts, self.changed_files)
        return 512 + sum(map(len, filter(None, (*texts, self.stdout, self.stderr))))

    def values(self) -> tuple[Any, ...]:
        """What its columns hold, in the order of `COLUMNS`."""
        return tuple(storable(getattr(self, name)) for name in COLUMNS)

    def as_json(self) -> dict[str, Any]:
        """For people and scripts; without the streams."""
        ended = self.ended
        return {
            "run_id": self.id,
            "tool": self.tool,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "error": self.error,
            "started": iso_time(self.started),
            "ended": iso_time(ended) if ended is not None else None,
            "seconds": round(ended - self.started, 6) if ended is not None else None,
            "phases": json.loads(self.phases),
            "engine": self.engine,
            "isolation": self.isolation,
            "passed_over": [dict(zip(("engine", "reason"), each, strict=True)) for each in json.loads(self.why)],
            "image": self.image,
            "contract": self.contract,
            "contract_sha256": self.contract_sha256,
            "plan": json.loads(self.plan),
            "arguments": _read(self.arguments),
            "caller": self.caller,
            "client": self.client,
            "server": self.server,
            "root": self.root,
            "stdout_bytes": self.stdout_bytes,
            "stderr_bytes": self.stderr_bytes,
            "artifacts": json.loads(self.artifacts),
            "changed_files": json.loads(self.changed_files),
        }


def storable(value: Any) -> Any:
    """A value as a database takes it: paths and arguments may hold bytes that are not UTF-8 (PEP 383), and halves of
    characters; these are written as numbers, as is NUL, which PostgreSQL's texts cannot hold."""
    if isinstance(value, str):
        if not value.isascii():
            value = value.encode(errors="backslashreplace").decode()
        return value.replace("\0", "\\x00") if "\0" in value else value
    return value


COLUMNS = tuple(field.name for field in dataclasses.fields(StoredRun))
SHOWN = tuple(name for name in COLUMNS if name not in ("stdout", "stderr"))
"""The columns that say something of a run: all but its streams."""


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@functools.lru_cache(maxsize=512)
def plan_text(blueprint: Blueprint) -> str:
    """What a blueprint says, as JSON; what is as it is by default is left out. It holds no argument, no variable and no
    secret, which belong to a call."""
    facts: dict[str, Any] = {}
    for field in dataclasses.fields(blueprint):
        value = getattr(blueprint, field.name)
        if field.name not in _NOT_SHOWN and value != field.default:
            facts[field.name] = _plain(value)
    return json.dumps(facts, default=str)


_NOT_SHOWN = ("tool", "cache_owner", "code", "remote")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr)
        return {name: _plain(item) for name, item in fields if name not in ("identity", "guard")}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:  # cut, or a digest
        return text
