"""When a server has to end, and what a service manager such as systemd is notified of (sd_notify(3),
"Type=notify")."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager

import anyio

from praxis_mcp.serving.wire import stop_signals
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import unwrapped

_PINGS = 2
"""A watchdog is notified so many times in its interval, as sd_watchdog_enabled(3) advises."""


class ServiceManager:
    """Sends datagrams to the socket that ``NOTIFY_SOCKET`` names; without it, nothing.

    The variable is taken out of the environment, so that no tool or upstream can speak for the server.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """Args: watchdog: seconds within which the manager wants a sign of life; None asks for nothing."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = watchdog
        self._is_stopping = False
        self._is_reached = True

    @classmethod
    def take(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """The one that started this process."""
        address = environment.pop("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            address = ""
        watchdog = _interval(environment)
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            environment.pop(name, None)
        return cls(address, watchdog if address else None)

    def ready(self, status: str) -> None:
        """Requests are answered, by every tool that there is."""
        if not self._is_stopping:
            self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, within: float) -> None:
        """The server has begun to end, and takes so many seconds at most."""
        self._is_stopping = True
        self._send(f"STOPPING=1\nSTATUS=Stopping\nEXTEND_TIMEOUT_USEC={int(within * 1e6)}")

    async def keep_alive(self) -> None:
        """Notify the watchdog, where there is one, for as long as the event loop runs; until cancelled."""
        if self.watchdog is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await anyio.sleep(self.watchdog / _PINGS)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(text.encode(), self._address)
            self._is_reached = True
        except OSError as exc:
            if self._is_reached:  # else the watchdog would say it again every few seconds
                logger.warning("the service manager cannot be reached: {}", exc.strerror)
            self._is_reached = False


def _interval(environment: Mapping[str, str]) -> float | None:
    """Seconds of ``WATCHDOG_USEC``, where it is meant for this process (sd_watchdog_enabled(3))."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    return int(usec) / 1e6 if usec.isdecimal() and int(usec) > 0 and pid == str(os.getpid()) else None


@asynccontextmanager
async def until_signalled() -> AsyncIterator[None]:
    """Cancel the body at the first SIGINT, SIGTERM or SIGHUP, and end normally then. A second one ends the process at
    once."""

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*stop_signals()) as signals:
            async for number in signals:
                logger.info("{}: shutting down", signal.Signals(number).name)
                scope.cancel()
                return

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            yield
            tasks.cancel_scope.cancel()
