"""The process that ends a cluster when nobody uses it any more, however they ended: `python guard.py DIRECTORY`.

Who uses a cluster holds a lock on the file `users` in its directory, which the kernel releases when the process dies.
The guard waits for that lock, lets go of the machines, which then end, and removes what a kernel does not by itself:
control groups, the host's end of the network and the directory. Killed itself, it takes the machines with it, and
whoever starts the next cluster removes the rest.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

PLACES = Path("/var/tmp")
"""Where directories of clusters are: not on a tmpfs, which counts as memory, and short, for the names of sockets."""
PREFIX = "praxis-cluster-"
TIMEOUT = 60.0
"""Seconds within which what was killed is gone."""


@contextmanager
def locked(file: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file for as long as this process lives, and forked ones do not.

    Raises:
        BlockingIOError: another process holds it.
    """
    with file.open("r+b") as held:
        fcntl.lockf(held, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield


def has_other_users(users: Path) -> bool:
    """Whether another process uses a cluster."""
    layout = "hhqqi4x"  # struct flock, where off_t has 64 bits
    with users.open("r+b") as file:
        found = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return struct.unpack(layout, found)[0] == fcntl.F_RDLCK


def control_groups(place: Path) -> list[Path]:
    """The control groups of a cluster, the inner ones first."""
    roots = [root for root in Path("/sys/fs/cgroup").glob(f"*/{place.name}") if not root.is_symlink()]
    roots += [root for root in [Path("/sys/fs/cgroup") / place.name] if root.is_dir()]
    return [Path(group) for root in roots for group, _, _ in os.walk(root, topdown=False)]


def machines_run(place: Path) -> bool:
    """Whether a machine has not wholly ended; for who has closed their own end of the pipe.

    The program that started it holds the pipe too, until the last of its processes is gone.
    """
    try:
        os.close(os.open(place / "alive", os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # nobody reads it, or there is none
        return False
    return True


def remove(place: Path) -> None:
    """Remove what is left of a cluster whose machines have ended or are about to; within a minute, or not."""
    limit = time.monotonic() + TIMEOUT
    while machines_run(place) and time.monotonic() < limit:
        time.sleep(0.02)
    for name, command in (("link", "ip link delete"), ("network", "ip route delete unreachable")):
        with suppress(FileNotFoundError):
            words = [*command.split(), (place / name).read_text()]
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT)
    while (groups := control_groups(place)) or place.exists():
        for group in groups:
            with suppress(OSError):  # a process in it is still on its way out
                group.rmdir()
        if not groups:
            rmtree(place, ignore_errors=True)  # one may still write
        if time.monotonic() > limit:
            break
        time.sleep(0.02)


def sweep() -> None:
    """Remove what clusters have left whose guards were killed; who calls it sees to it that none is being made."""
    for place in PLACES.glob(f"{PREFIX}*"):
        with suppress(BlockingIOError, FileNotFoundError), locked(place / "guard"):
            remove(place)


def main(place: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: its users hear it too
    with locked(place / "guard"):
        # Machines end when this end is closed, which the kernel sees to.
        with (place / "alive").open("wb"), (place / "users").open("r+b") as users:
            print(flush=True)
            fcntl.lockf(users, fcntl.LOCK_EX)
        remove(place)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
