"""What contracts look like, kept on disk by the hash of their content, so that a start need not parse them.

The cache is a convenience of one user, and trusted no further: its directory must belong to the user and be closed
to everybody else, and what it holds is a tool's face only. What a call does always comes from the contract itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from praxis_mcp.support.files import cache_home
from praxis_mcp.support.logs import logger

_MAX_CACHE_FILE = 64 * 1024 * 1024
_MOST_FILES = 32
"""Sets of directories that are remembered; each has a file."""


def default_cache_dir() -> Path | None:
    """`contracts` in `cache_home`; None for a user without a home."""
    base = cache_home()
    return base / "contracts" if base is not None else None


class FaceCache:
    """Faces and diagnostics by key, for one set of tool directories.

    Args:
        directory: where the cache is, made if it is missing; None is nowhere.
        tools: the directories whose contracts it holds.
    """

    def __init__(self, directory: Path | None, tools: Sequence[Path]) -> None:
        self._directory = directory or Path()
        self._items: dict[str, Any] | None = {} if directory is None else None
        self._is_kept = directory is not None
        names = "\0".join(str(tool) for tool in tools)
        self._file = self._directory / f"{hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:32]}.json"

    def read(self) -> dict[str, Any]:
        """What is known, by key; empty where the cache is missing, damaged, of another version or not to be trusted."""
        if self._items is None:
            self._items = self._read()
        return self._items

    def write(self, items: dict[str, Any]) -> None:
        """Replace everything; a cache that cannot be written is done without."""
        if items.keys() == self.read().keys():
            return
        self._items = items
        if not self._is_kept:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_private():
                logger.debug("{} is open to other users; contracts are not cached there", self._directory)
                return
            self._prune()
            handle, name = tempfile.mkstemp(dir=self._directory, suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    # json.dump, unlike json.dumps, does not use the C encoder and takes twenty times as long.
                    file.write(json.dumps({"version": _version(), "items": items}, separators=(",", ":")))
                Path(name).replace(self._file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except (OSError, ValueError) as exc:
            logger.debug("contracts are not cached: {}", exc)

    def _read(self) -> dict[str, Any]:
        try:
            if not self._is_private():
                return {}
            # No link, and no file that another user has put there.
            descriptor = os.open(self._file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not _is_own(status) or status.st_size > _MAX_CACHE_FILE:
                    return {}
                content = json.loads(file.read())
            if content["version"] == _version() != "" and isinstance(content["items"], dict):
                return content["items"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            logger.debug("the cache of contracts is ignored: {}", exc)
        return {}

    def _is_private(self) -> bool:
        status = self._directory.lstat()
        return stat.S_ISDIR(status.st_mode) and _is_own(status) and (os.name == "nt" or not status.st_mode & 0o077)

    def _prune(self) -> None:
        files = sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - _MOST_FILES + 1)]:
            if path != self._file:
                with suppress(OSError):
                    path.unlink()


def _is_own(status: os.stat_result) -> bool:
    return os.name == "nt" or status.st_uid == os.getuid()


def _version() -> str:
    """A hash that changes with the code and the lists by which contracts are read and faces made, in releases and in a
    developer's tree alike; empty where they lie in no folder (a zip file): then nothing that was cached is used."""
    files: list[str] = []
    folders = [os.fspath(Path(__file__).parents[1])]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders += [] if entry.name == "__pycache__" else [entry.path]
                    else:
                        status = entry.stat()
                        files.append(f"{entry.path} {status.st_size} {status.st_mtime_ns}")
    except OSError:
        return ""
    return hashlib.sha256("\n".join(sorted(files)).encode(errors="surrogateescape")).hexdigest()
