"""Servers of this user on this machine: what the live ones report for `praxis-mcp doctor`, and what killed ones left.

Each keeps a small file in a private directory that it holds (see `support.scratch`): whether the directory is held says
whether its server lives, and no process id does. A killed server's is swept with everything else that it left."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import PraxisError
from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.execution.tally import CallTally
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.files import read_regular, replace_text
from praxis_mcp.support.logs import logger, places
from praxis_mcp.support.scratch import CAN_HOLD, PREFIX, Scratch, is_held

WRITE_EVERY = 2.0
"""Seconds from a server's start to its first word, and at least from one to the next."""
_PREFIX = PREFIX + "server-"
_FILE = "status.json"
_MAX_STATUS_FILE = 4 * 1024 * 1024


class ServerStatus:
    """What one server says of itself.

    Args:
        settings: of the server.
        engines: whose pools it tells of.
        tally: of its calls.
    """

    def __init__(self, settings: Settings, engines: EngineRegistry, tally: CallTally) -> None:
        self._engines = engines
        self._tally = tally
        self._warm = settings.warm
        self._about = {
            "pid": os.getpid(),
            "version": version("praxis-mcp"),
            "root": str(settings.root),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    async def keep(self) -> None:
        """Write it down whenever it has changed, until cancelled; then nothing of it stays. Where no directory can be
        held (Windows), none is written."""
        if not CAN_HOLD:
            return
        place: Scratch | None = None
        written = ""
        try:
            while True:
                await anyio.sleep(WRITE_EVERY)
                text = json.dumps(self._now())
                if text == written:
                    continue
                try:
                    if place is None:
                        place = await anyio.to_thread.run_sync(Scratch.make, _PREFIX)
                    await anyio.to_thread.run_sync(replace_text, place.path / _FILE, text)
                    written = text
                except OSError as exc:
                    logger.debug("doctor cannot be informed of this server: {}: {}", exc.strerror, exc.filename)
        finally:
            if place is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(place.remove)

    def _now(self) -> dict[str, Any]:
        pools = {engine: dataclasses.asdict(metrics) for engine, metrics in self._engines.warm().items()}
        calls = {"ended": self._tally.ended.total(), "running": self._tally.under_way}
        return {**self._about, "calls": calls, "warm": {"enabled": self._warm.enabled, "engines": pools}}


def live_servers() -> tuple[dict[str, Any], ...]:
    """What the servers of this user say of themselves that live, the oldest first; blocks, if only shortly.

    Keys: ``pid``, ``version``, ``root``, ``started`` (ISO 8601, UTC), ``calls``, ``warm`` (``enabled``, and the
    `PoolMetrics` of each engine in use). A server in another temporary directory, or younger than `WRITE_EVERY`, is not
    found.
    """
    if not CAN_HOLD:
        return ()
    found = (_read(path) for path in Path(tempfile.gettempdir()).glob(_PREFIX + "*") if is_held(path))
    return tuple(sorted((item for item in found if item is not None), key=lambda item: str(item.get("started"))))


def _read(directory: Path) -> dict[str, Any] | None:
    try:
        # In a temporary directory that all users share, somebody may have left a pipe, or a link.
        found = json.loads(read_regular(directory / _FILE, _MAX_STATUS_FILE, follow=False))
    except (OSError, ValueError):  # it has written nothing yet, or ends just now
        return None
    return found if isinstance(found, dict) else None


REAP_EVERY = 60.0
"""Seconds from one look for leftovers to the next."""
ENGINE_REAP_TIMEOUT = 30.0
"""Seconds that one engine's look may take."""


async def reap_leftovers(engines: EngineRegistry, selector: EngineSelector) -> None:
    """Have every engine that is there remove what servers left behind that are gone; never raises an engine's error."""
    # All at once: a daemon that is slow to remove a container must not keep sandboxes of a killed server running.
    async with anyio.create_task_group() as tasks:
        for name in engines.names_to_reap():
            tasks.start_soon(_reap, name, engines, selector)


async def _reap(name: str, engines: EngineRegistry, selector: EngineSelector) -> None:
    with anyio.move_on_after(ENGINE_REAP_TIMEOUT) as scope:
        try:
            # Looking at it may fail as well: a server out of descriptors has none for a pipe to bubblewrap.
            if (await selector.status(name)).available:
                await engines.get(name).reap()
        except PraxisError as exc:
            logger.debug("{} could not look for leftovers: {}", name, exc)
        except Exception as exc:  # noqa: BLE001 - an engine's defect must not end the only net under all others
            logger.error("{} could not look for leftovers: {}", name, places(exc))
    if scope.cancelled_caught:
        logger.debug("{} did not look for leftovers within {:g} s", name, ENGINE_REAP_TIMEOUT)


async def reap_periodically(engines: EngineRegistry, selector: EngineSelector) -> None:
    """`reap_leftovers` now and every minute, until cancelled."""
    while True:
        await reap_leftovers(engines, selector)
        await anyio.sleep(REAP_EVERY)
