"""Real MCP servers (tests.kit.upstream_server) started and ended by tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.ports import held_port

ROOT = Path(__file__).resolve().parents[2]
TRANSPORTS = ("stdio", "http", "sse")
ERAS = ("modern", "legacy")


def words(transport: str, *options: str, port: int = 0) -> list[str]:
    """The command of a server."""
    place = [] if transport == "stdio" else [str(port)]
    return [sys.executable, "-m", "tests.kit.upstream_server", transport, *place, *options]


@dataclass
class HttpServer:
    """A server in a process of its own, at one port for all its lives."""

    options: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        assert self.process is None
        self.process = subprocess.Popen(
            words("http", *self.options, port=self.port), stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                os.kill(self.process.pid, signal.SIGCONT)
                os.kill(self.process.pid, number)
            self.process.communicate(timeout=60)
            self.process = None

    def url(self, transport: str) -> str:
        return f"http://127.0.0.1:{self.port}/{'sse' if transport == 'sse' else 'mcp'}"


@contextmanager
def http_server(*options: str) -> Iterator[HttpServer]:
    with held_port() as port:
        server = HttpServer(options, port)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@dataclass
class Place:
    """Where an upstream is, for a test that runs over every transport: its address, and what it notes of its calls."""

    transport: str
    address: Any
    events: Path
    server: HttpServer | None = None

    def noted(self) -> list[str]:
        return self.events.read_text().splitlines() if self.events.exists() else []


@contextmanager
def upstream_at(transport: str, era: str, directory: Path, *options: str) -> Iterator[Place]:
    """An upstream over that transport, in that era. By stdio it is started by whoever calls it."""
    events = directory / "events"
    flags = (*options, "--events", str(events), *(["--legacy"] if era == "legacy" else []))
    if transport == "stdio":
        yield Place(transport, words("stdio", *flags), events)
        return
    with http_server(*flags) as server:
        yield Place(transport, server.url(transport), events, server)
