"""Where the directories of runs are: what long streams and artifacts are kept in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from praxis_mcp.errors import ExecutionError
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import Scratch, remove_directory, sweep_scratch

_PREFIX = "praxis-mcp-runs-"


class RunFiles:
    """Where the directories of runs are: in the store, where there is one, which decides how long they stay; else in a
    temporary directory. That is locked for as long as the server lives; the kernel lets go of the lock when the server
    is killed, and so the next server knows which directories nobody needs."""

    def __init__(self, store: RecordStore | None) -> None:
        self._store = store
        self._root: Path | None = None
        self._scratch: Scratch | None = None

    @property
    def is_lasting(self) -> bool:
        """Whether they outlive the server."""
        return self._store is not None

    def open(self) -> None:
        """Make the directory, and sweep what killed servers left.

        Raises:
            OSError: it cannot be made.
        """
        if self._store is not None:
            self._store.prepare()
            self._root = self._store.files
            return
        self._scratch = Scratch.make(_PREFIX)
        self._root = Path(os.path.realpath(self._scratch.path))  # as `store.files_in`
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

    def close(self) -> None:
        """Remove a temporary directory."""
        if self._scratch is not None:
            remove_directory(self._scratch.path)
            self._scratch.release()
            self._scratch = None


@contextmanager
def making_files() -> Iterator[None]:
    """Around what makes files of a run for its call, which fails where they cannot be made.

    Raises:
        ExecutionError: they cannot.
    """
    try:
        yield
    except OSError as exc:
        raise ExecutionError(
            f"The records of this run cannot be written: {exc.strerror}: {exc.filename}.",
            remedy="Free space where records.directory (or TMPDIR) is, or name another place.",
        ) from exc


def _remove_left(directory: Path) -> None:
    logger.debug("removing records that a killed server left: {}", directory)
    remove_directory(directory)
