"""What a finished command wrote: its streams, as they are, and its artifacts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.call import Outcome, Stream
from praxis_mcp.engines.dagger.prefix import STDERR, STDOUT
from praxis_mcp.engines.dagger.query import Field, chain
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.output import Captured, OutputListener, StreamCollector, StreamName
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.plans.secrets import MaskedStream, Masker
from praxis_mcp.support.logs import logger

MAX_FETCHED = 1024**3
"""Bytes of a stream up to which it is fetched; of a longer one only the beginning is kept."""

_EXPORT_PIECE = 1024 * 1024


class LiveOutput:
    """Passes output on while the command runs, secrets masked, and the rest of it at the end.

    What was heard while it ran may lack pieces (see `dagger.logs`); then the rest overlaps with it.
    """

    def __init__(self, plan: Plan, listener: OutputListener) -> None:
        self._listener = listener
        self._masked = {name: MaskedStream(Masker(plan.call.secrets)) for name in ("stdout", "stderr")}
        self._passed_on = {"stdout": 0, "stderr": 0}

    def hear(self, name: StreamName, data: bytes) -> None:
        """The next piece, while the command runs."""
        masked = self._masked[name].feed(data)
        if masked:
            self._passed_on[name] += len(masked)
            self._listener(name, masked)

    def rest(self, name: StreamName, data: bytes) -> None:
        """The next piece of the whole stream, masked; passed on as far as it is new."""
        known = min(self._passed_on[name], len(data))
        self._passed_on[name] -= known
        if data[known:]:
            self._listener(name, data[known:])


async def collect_streams(
    session: Session, outcome: Outcome, plan: Plan, context: ExecutionContext, scratch: Path
) -> tuple[Captured, Captured]:
    """Both streams, secrets masked; what the answer could not hold is fetched as a file."""
    streams = {"stdout": outcome.stdout, "stderr": outcome.stderr}
    large = {name: scratch / name for name, item in streams.items() if not item.whole and item.size <= MAX_FETCHED}
    if large:
        places = {"stdout": STDOUT, "stderr": STDERR}
        exports = [
            Field("file", {"path": places[name]}, (Field("export", {"path": str(file)}),), name)
            for name, file in large.items()
        ]
        await session.query(chain([Field("loadContainerFromID", {"id": outcome.container})], *exports))
    async with context.collectors(plan) as (stdout, stderr):
        await _collect(stdout, outcome.stdout, large.get("stdout"))
        await _collect(stderr, outcome.stderr, large.get("stderr"))
    return (
        _captured(stdout, outcome.stdout, "stdout" in large),
        _captured(stderr, outcome.stderr, "stderr" in large),
    )


async def _collect(collector: StreamCollector, stream: Stream, file: Path | None) -> None:
    if file is None:
        await collector.write(stream.text.encode())
        return
    async with await anyio.open_file(file, "rb") as opened:
        while piece := await opened.read(_EXPORT_PIECE):
            await collector.write(piece)


def _captured(collector: StreamCollector, stream: Stream, was_fetched: bool) -> Captured:
    if stream.whole or was_fetched:
        return collector.captured
    logger.warning("a stream of {} bytes is more than is fetched; its beginning is kept", stream.size)
    return replace(collector.captured, total=stream.size)


async def export_artifacts(session: Session, container: str, blueprint: Blueprint, directory: Path) -> None:
    """Everything that the command left in its artifact directory, into a directory of the host."""
    steps = [
        Field("loadContainerFromID", {"id": container}),
        Field("directory", {"path": blueprint.artifact_dir}),
    ]
    await session.query(chain(steps, Field("export", {"path": str(directory)})))
