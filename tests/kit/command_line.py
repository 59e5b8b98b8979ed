"""Runs `praxis-mcp` commands, each in a process of its own that is forked from one that has imported everything.

Imports are most of what a short command costs. What a command reads, prints and returns is as if it had been started
by itself. What it imports, and how it finds its standard streams and their encoding, is not: tests of those start an
interpreter (tests/cli/test_encodings.py, tests/cli/test_terminal.py).
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kit.ending import at_end

ROOT = Path(__file__).resolve().parents[2]
NOT_IMPORTED = ("praxis_mcp.engines.dagger", "praxis_mcp.engines.docker", "praxis_mcp.testing")
"""Packages that few commands need, and that import SDKs."""


def praxis(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run `praxis-mcp` with these words as `subprocess.run` does, and capture what it writes.

    Args:
        cwd: the directory that it is started in.
        env: its environment; by default this process's.
        stdin: its standard input.
        timeout: seconds.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    order = {"words": words, "cwd": str(cwd), "env": dict(os.environ if env is None else env), "timeout": timeout}
    return _server().run(order, stdin)


class _Server:
    """The process that commands are forked from, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._answers = self._socket.makefile()
        at_end.callback(self._close)

    def _close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()

    def run(self, order: dict[str, Any], stdin: str) -> subprocess.CompletedProcess[str]:
        began = time.monotonic()
        with self._lock, ThreadPoolExecutor(3) as threads:
            ends = [os.pipe() for _ in range(3)]
            streams = [ends[0][0], ends[1][1], ends[2][1]]
            threads.submit(_write, ends[0][1], stdin)
            out, err = (threads.submit(_read, end) for end, _ in ends[1:])
            try:
                socket.send_fds(self._socket, [b"\n"], streams)
                self._socket.sendall(json.dumps(order).encode() + b"\n")
            finally:
                for each in streams:
                    os.close(each)
            status = int(self._answers.readline())
        if status == -signal.SIGKILL and time.monotonic() - began >= order["timeout"]:
            raise subprocess.TimeoutExpired(order["words"], order["timeout"], out.result(), err.result())
        return subprocess.CompletedProcess(order["words"], status, out.result(), err.result())


@functools.cache
def _server() -> _Server:
    return _Server()


def _write(descriptor: int, text: str) -> None:
    with suppress(BrokenPipeError), open(descriptor, "w") as stream:  # it may end without reading it
        stream.write(text)


def _read(descriptor: int) -> str:
    with open(descriptor) as stream:
        return stream.read()


# --- in the process that commands are forked from ---------------------------------------------------------------------


def _serve(descriptor: int) -> Callable[[], None]:
    """Fork a process for each order; in such a process, return what it is to run."""
    for path in (ROOT / "praxis_mcp").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if path.stem != "__main__" and not name.startswith(NOT_IMPORTED):
            importlib.import_module(name)
    from praxis_mcp.cli import main

    gc.collect()
    gc.freeze()
    orders = socket.socket(fileno=descriptor)
    lines = orders.makefile()
    while True:
        _, streams, _, _ = socket.recv_fds(orders, 1, 3)
        if not streams:
            sys.exit()
        order = json.loads(lines.readline())
        child = os.fork()
        if child == 0:
            lines.close()
            orders.close()
            _become(order, streams)
            return main
        for each in streams:
            os.close(each)
        signal.signal(signal.SIGALRM, lambda *_, child=child: _kill(child))
        signal.setitimer(signal.ITIMER_REAL, order["timeout"])
        _, status = os.waitpid(child, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        orders.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _kill(child: int) -> None:
    with suppress(ProcessLookupError):  # it ended just now
        os.kill(child, signal.SIGKILL)


def _become(order: dict[str, Any], streams: list[int]) -> None:
    """Be a process as if this command had been started by itself."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    # New ones, as Python makes them, since those of the server are of the kind that its streams are.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["praxis-mcp", *order["words"]]
    sys.modules["__main__"].__package__ = None  # where Click would find another name of the program
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))()
