"""Removing what killed servers left behind: the net under all others, at start-up and every minute."""

from __future__ import annotations

import anyio

from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import PraxisError
from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.support.defects import places
from praxis_mcp.support.logs import logger

REAP_EVERY = 60.0
"""Seconds from one look for leftovers to the next."""
ENGINE_REAP_TIMEOUT = 30.0
"""Seconds that one engine's look may take."""


async def reap_leftovers(engines: EngineRegistry, selector: EngineSelector) -> None:
    """Have every engine that is there remove what servers left behind that are gone; never raises an engine's error."""
    # All at once: a daemon that is slow to remove a container must not keep sandboxes of a killed server running.
    async with anyio.create_task_group() as tasks:
        for name in engines.names():
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


async def keep_house(engines: EngineRegistry, selector: EngineSelector) -> None:
    """`reap_leftovers` now and every minute, until cancelled."""
    while True:
        await reap_leftovers(engines, selector)
        await anyio.sleep(REAP_EVERY)
