"""A server that ends by nothing but SIGKILL, and what it starts neither, for tests:

    python -m tests.kit.clinging_server FILE

Its tools are `odd_server`'s. It writes to FILE a line for each of its processes, ``KIND PID``: itself; a child that
holds its output; one in a session of its own; one that gave up its parent; and one that also cleared its environment.
"""

import os
import signal
import sys
import time
from pathlib import Path

from tests.kit import odd_server

KINDS = ("server", "child", "session", "daemon", "bare")
_SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def note(file: Path, kind: str) -> None:
    with file.open("a") as stream:
        stream.write(f"{kind} {os.getpid()}\n")


def start(file: Path, kind: str) -> None:
    if os.fork():
        return
    if kind != "child":
        os.setsid()
    if kind in ("daemon", "bare") and os.fork():
        os._exit(0)
    note(file, kind)
    os.execve(sys.executable, [sys.executable, "-c", _SLEEP], {} if kind == "bare" else os.environ)


def main() -> None:
    file = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind in KINDS[1:]:
        start(file, kind)
    note(file, "server")
    odd_server.main()
    time.sleep(600)


if __name__ == "__main__":
    main()
