"""Where records of runs lie: one directory a run, swept of what ended servers and killed ones left. Blocking."""

from __future__ import annotations

import time
from pathlib import Path

from praxis_mcp.settings.sections import RecordSettings
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
    def lasting(self) -> bool:
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
        if not self.lasting or self._root is None:
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
        if not self.lasting and self._root is not None:
            remove_directory(self._root)
        if self._scratch is not None:
            self._scratch.release()
            self._scratch = None


def _remove_left(directory: Path) -> None:
    logger.debug("removing records that a killed server left: {}", directory)
    remove_directory(directory)
