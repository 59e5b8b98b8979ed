"""The seam between the records and what they are stored in. A database is used by one thread: that which opened it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from praxis_mcp.execution.records.row import StoredRun

Dialect = Literal["sqlite", "postgres"]
Pieces = Iterable[tuple[str, str, bytes]]
"""Output of runs that have not ended, in order: run, stream, bytes. Gone through once."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept.

    Attributes:
        max_age: seconds since a run began.
        max_runs: runs.
        max_bytes: of all runs together, their files included.
    """

    max_age: float
    max_runs: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Which runs are meant. Empty and None leave it open.

    Attributes:
        tool, engine, outcome, caller, root, kept_at: exactly this one.
        since, until: when it began, in seconds since 1970: at or after, and before.
    """

    tool: str = ""
    engine: str = ""
    outcome: str = ""
    caller: str = ""
    since: float | None = None
    until: float | None = None
    root: str = ""
    kept_at: str = ""


class Database(Protocol):
    """What the records ask of a database. Every method blocks, and raises `RecordsUnavailable`."""

    def write(
        self, runs: Iterable[StoredRun], pieces: Pieces = (), before: Callable[[], object] = lambda: None
    ) -> None:
        """Keep runs, whole or not at all; one that is there is replaced, and one that has ended loses its live output.

        Args:
            runs, pieces: what is kept.
            before: is called before others see them; by then the database may be at work already.

        Raises:
            ValueError: one of them holds what the database does not take. (OverflowError, in SQLite.)
        """
        ...

    def servers_of_open_runs(self) -> list[str]:
        """The servers that have runs which have not ended."""
        ...

    def close_runs_of(
        self, server: str, ended: float, before: Callable[[list[StoredRun]], None] = lambda _: None
    ) -> list[StoredRun]:
        """Say of a server's runs that have not ended that they are lost; which those are.

        Args:
            server: which.
            ended: when.
            before: is called with the runs, if any, before others see that; where it raises, nothing is changed.
        """
        ...

    def remove_beyond(self, bounds: Bounds, now: float) -> list[str]:
        """Remove ended runs that are too old or too many, the oldest first, not too many at once; their ids."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Remove runs."""
        ...

    def find(self, run_id: str) -> StoredRun | None:
        """A run with its streams."""
        ...

    def find_ids(self, prefix: str, limit: int) -> list[str]:
        """Ids that begin so."""
        ...

    def select(self, filters: Filters, limit: int | None = None) -> Iterator[StoredRun]:
        """Runs without their streams, newest first."""
        ...

    def live_output(self, run_id: str, after: int) -> list[tuple[int, str, bytes]]:
        """Pieces of output of a run that has not ended, from the number `after` on: number, stream, bytes."""
        ...

    @property
    def heartbeat(self) -> float:
        """Seconds within which `keep_alive` has to be called again; infinite where nothing depends on it."""
        ...

    @property
    def safe_after(self) -> float:
        """Seconds after which what was written outlives a crash of the database; 0 where it does so at once."""
        ...

    def commit_durably(self) -> None:
        """From now on, what this connection commits outlives a power failure, too, as does all that it has committed
        once the next commit has been."""
        ...

    def keep_alive(self, server: str) -> None:
        """Say that a server lives, to those on other machines."""
        ...

    def leave(self, server: str) -> None:
        """Say that a server has ended, to those on other machines."""
        ...

    def has_tasks_of(self, server: str) -> bool:
        """Whether that server has tasks which have not ended (`praxis_mcp.execution.tasks`)."""
        ...

    def is_silent(self, server: str) -> bool:
        """Whether nothing in the database says that a server lives. The lock on its file, where this machine has that,
        says more."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def migrations(dialect: Dialect) -> list[tuple[int, list[str]]]:
    """What takes a database from nothing to now: number, and statements; each is applied once, in one transaction.
    Those that every dialect understands are written once, next to the directories of the dialects."""
    from importlib.resources import files

    found: list[tuple[int, list[str]]] = []
    shared = files("praxis_mcp.execution.records") / "migrations"
    for item in (*shared.iterdir(), *(shared / dialect).iterdir()):
        if item.name.endswith(".sql"):
            statements = (text.strip() for text in item.read_text(encoding="utf-8").split(";"))
            found.append((int(item.name.partition("_")[0]), [text for text in statements if text]))
    return sorted(found)
