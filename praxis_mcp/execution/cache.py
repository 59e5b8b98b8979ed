"""Results of tools whose contracts say `cache: pure`, so that an equal call need not run again."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import anyio.to_thread

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.workers import size_of_json

MAX_CACHED_RESULTS = 256
MAX_RESULT = 256 * 1024
"""Bytes of output up to which a result is remembered."""
_MAX_FILES = 2000
"""Mounted files up to which a change among them can be noticed at a fair price; more, and nothing is remembered."""


class ResultCache:
    """The last results of pure calls, in memory, least recently used ones dropped.

    A key stands for everything that a call depends on: the whole plan, and size and time of change of every file that
    is mounted or in the directory of the contract.
    """

    def __init__(self) -> None:
        self._results: OrderedDict[Hashable, ExecutionResult] = OrderedDict()

    async def key(self, plan: Plan, contract_dir: Path | None) -> Hashable | None:
        """The key of a plan; None when its result must not be remembered.

        Args:
            plan: what would run.
            contract_dir: the contract's own folder, where the program often is.
        """
        fixed = plan.blueprint
        if not fixed.pure or fixed.artifact_dir or any(mount.writable for mount in fixed.mounts):
            return None
        sources = {mount.source for mount in fixed.mounts} | ({contract_dir} if contract_dir else set())
        digest = await anyio.to_thread.run_sync(_digest, plan, tuple(sorted(sources)))
        return (fixed, digest) if digest is not None else None

    def get(self, key: Hashable) -> ExecutionResult | None:
        """The remembered result, if there is one."""
        if key not in self._results:
            return None
        self._results.move_to_end(key)
        return self._results[key]

    def put(self, key: Hashable, result: ExecutionResult) -> None:
        """Remember a successful, whole, small result."""
        streams = (result.stdout, result.stderr)
        if (
            not result.success
            or any(item.omitted for item in streams)
            or sum(item.total for item in streams) > MAX_RESULT
            or (
                result.remote is not None
                and size_of_json((result.remote.blocks, result.remote.structured), MAX_RESULT) > MAX_RESULT
            )
        ):
            return
        # A record's file goes when its run is forgotten; what is remembered here stands by itself.
        stdout, stderr = (replace(item, file=None) for item in streams)
        self._results[key] = replace(result, stdout=stdout, stderr=stderr)
        while len(self._results) > MAX_CACHED_RESULTS:
            self._results.popitem(last=False)


def _digest(plan: Plan, sources: tuple[Path, ...]) -> bytes | None:
    """A digest of the call and of the state of its files: keys are many, and standard input may be large."""
    files = _fingerprint(sources)
    if files is None:
        return None
    call = plan.call
    digest = hashlib.sha256()
    for part in (repr(call.argv), repr(sorted(call.env.items())), repr(files)):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    for content in (call.stdin, *(file.content for file in call.files)):
        digest.update(b"-" if content is None else str(len(content)).encode() + b":" + content)
    digest.update(repr([file.path for file in call.files]).encode())
    return digest.digest()


def _fingerprint(sources: tuple[Path, ...]) -> tuple[tuple[str, int, int], ...] | None:
    found: list[tuple[str, int, int]] = []
    waiting = [str(source) for source in sources]
    while waiting:
        path = waiting.pop()
        try:
            about = os.stat(path)  # noqa: PTH116 - thousands of files: a Path for each costs more than the call saves
            if os.path.isdir(path):  # noqa: PTH112
                with os.scandir(path) as entries:
                    waiting += sorted(entry.path for entry in entries if not entry.is_symlink())
        except OSError:
            return None
        found.append((path, about.st_size, about.st_mtime_ns))
        if len(found) > _MAX_FILES:
            return None
    return tuple(found)
