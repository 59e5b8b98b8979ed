"""One run as the store keeps it: plain values, one for each column of the table `runs`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Self

from praxis_mcp.execution.outcomes import RUNNING
from praxis_mcp.plans.model import Blueprint


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
        outcome: one of `OUTCOMES`.
        error: why it failed, in the words that the caller got.
        why: JSON: the engines that were passed over, and why.
        plan: JSON: what ran, without the call's own words, variables and files.
        phases: JSON: seconds by phase.
        artifacts: JSON: name and size of each file that it left as a result.
        changed_files: JSON: paths.
        kept_bytes: what it takes up, files of its directory included.
        choice: why that engine, in words; empty for another server's tool.
        kept_at: where its files are: ``MACHINE:DIRECTORY`` of the server that ran it.
        changes: what is kept of the changed files (`praxis_mcp.execution.records.changes`); None where nothing is.
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
    choice: str = ""
    kept_at: str = ""
    changes: bytes | None = None
    stdout: bytes | None = None
    stderr: bytes | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """The run that a row holds.

        SQLite keeps any value in any column. One that is not of its column's kind, because somebody has changed it
        there, is left out: nothing that shows runs has to expect it.

        Args:
            values: in the order of `COLUMNS`; the streams and what is kept of changes may be missing.
        """
        found = dict(zip(COLUMNS, values, strict=False))
        for name, value in found.items():
            if type(value) not in _KINDS[name]:
                found[name] = _instead_of(value, name)
        if not 0 <= found["started"] <= _LAST_MOMENT:
            found["started"] = 0.0
        if found["ended"] is not None and not 0 <= found["ended"] <= _LAST_MOMENT:
            found["ended"] = found["started"]
        return cls(**found)

    @property
    def weight(self) -> int:
        """About how many bytes it takes up in memory and in the database."""
        texts = (self.error, self.why, self.plan, self.arguments, self.phases, self.artifacts, self.changed_files)
        return 512 + sum(map(len, filter(None, (*texts, self.changes, self.stdout, self.stderr))))

    def values(self) -> tuple[Any, ...]:
        """What its columns hold, in the order of `COLUMNS`."""
        values = {name: storable(getattr(self, name)) for name in COLUMNS}
        for name in FOUND_BY:
            values[name] = storable_name(getattr(self, name))
        if self.exit_code is not None:
            values["exit_code"] = max(-(2**31), min(self.exit_code, 2**31 - 1))
        return tuple(values.values())

    def as_json(self) -> dict[str, Any]:
        """For people and scripts; without the streams. What cannot be read, because somebody has changed it in the
        database, is left out and named (``damaged``)."""
        ended = self.ended
        damaged: list[str] = []
        facts = {
            "run_id": self.id,
            "tool": self.tool,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "error": self.error,
            "started": iso_time(self.started),
            "ended": iso_time(ended) if ended is not None else None,
            "seconds": round(ended - self.started, 6) if ended is not None else None,
            "phases": self._part("phases", damaged),
            "engine": self.engine,
            "choice": self.choice,
            "isolation": self.isolation,
            "passed_over": self._part("why", damaged),
            "image": self.image,
            "contract": self.contract,
            "contract_sha256": self.contract_sha256,
            "plan": self._part("plan", damaged),
            "arguments": _read(self.arguments),
            "caller": self.caller,
            "client": self.client,
            "server": self.server,
            "root": self.root,
            "kept_at": self.kept_at,
            "stdout_bytes": self.stdout_bytes,
            "stderr_bytes": self.stderr_bytes,
            "artifacts": self._part("artifacts", damaged),
            "changed_files": self._part("changed_files", damaged),
        }
        return {**facts, "damaged": damaged} if damaged else facts

    def _part(self, name: str, damaged: list[str]) -> Any:
        """What a column of JSON says; nothing where that is not what it should be, which is then named in `damaged`."""
        try:
            return _READERS[name](json.loads(getattr(self, name)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            damaged.append(name)
            return {} if name in ("phases", "plan") else []


def _instead_of(value: Any, name: str) -> Any:
    kinds = _KINDS[name]
    if type(None) in kinds:
        return None
    if float in kinds:
        return float(value) if isinstance(value, int) else 0.0
    if int in kinds:
        return 0
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def storable(value: Any) -> Any:
    """A value as a database takes it: paths and arguments may hold bytes that are not UTF-8 (PEP 383), and halves of
    characters; these are written as numbers, as is NUL, which PostgreSQL's texts cannot hold. A number beyond 64 bits
    becomes the nearest one."""
    if isinstance(value, str):
        if not value.isascii():
            value = value.encode(errors="backslashreplace").decode()
        return value.replace("\0", "\\x00") if "\0" in value else value
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**63 - 1))
    return value


def storable_name(name: str) -> str:
    """A text by which rows are found, as a database takes it: an index of PostgreSQL has no room for more than 2,704
    bytes (https://www.postgresql.org/docs/current/btree.html). Of a longer one, a digest stands for the rest: two that
    are not equal stay so."""
    text = storable(name)
    if len(text) * 4 <= MOST_NAME or len(whole := text.encode()) <= MOST_NAME:
        return text
    return whole[:_NAME_SHOWN].decode(errors="ignore") + "…" + hashlib.sha256(whole).hexdigest()


def _phases_of(value: Any) -> dict[str, float]:
    return {str(name): float(seconds) for name, seconds in value.items()}


def _choices_of(value: Any) -> list[dict[str, str]]:
    return [{"engine": str(engine), "reason": str(reason)} for engine, reason in value]


def is_inside(name: str) -> bool:
    """Whether a name of a file, as a database has it, leads to below the directory that it is relative to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _artifacts_of(value: Any) -> list[dict[str, Any]]:
    found = [{"name": str(item["name"]), "size": int(item["size"])} for item in value]
    # Nobody who may write to the database decides over a file of this machine.
    if not all(is_inside(item["name"]) for item in found):
        raise ValueError("a name leads out of the directory of its run")
    return found


MOST_NAME = 2000
"""Bytes of a text by which rows are found."""
_NAME_SHOWN = MOST_NAME - 80
FOUND_BY = ("server", "tool", "engine", "caller", "root", "outcome")
"""The columns by which runs are found."""

_READERS: dict[str, Callable[[Any], Any]] = {
    "phases": _phases_of,
    "why": _choices_of,
    "plan": lambda value: dict(value.items()),
    "artifacts": _artifacts_of,
    "changed_files": lambda value: [str(path) for path in [*value]],
}

COLUMNS = tuple(field.name for field in dataclasses.fields(StoredRun))
_TYPES = {"str": str, "float": float, "int": int, "bytes": bytes, "None": type(None)}
_KINDS = {
    field.name: tuple(_TYPES[word] for word in str(field.type).split(" | ")) for field in dataclasses.fields(StoredRun)
}
_LAST_MOMENT = 250_000_000_000.0
"""In the year 9892: `datetime` ends with 9999."""
SHOWN = tuple(name for name in COLUMNS if name not in ("changes", "stdout", "stderr"))
"""The columns that say something of a run: all but its streams and the content of files."""


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
    except (ValueError, RecursionError):  # cut, or a digest
        return text
