"""What every root file system needs and images may lack: directories to mount upon, and a file of hosts."""

# Paths of another file system, as text.
# ruff: noqa: PTH101, PTH102, PTH108, PTH118

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from praxis_mcp.images.inside import below, is_directory, resolve

_HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def add_fixtures(root: Path, make_directory: Callable[[str], str], clear: Callable[[str], None]) -> None:
    """Add what is missing.

    Args:
        root: the root file system.
        make_directory: makes a directory of it, and those above; says where it really is.
        clear: removes what is at a place.

    Raises:
        ImageError: its links go round in circles, or lead too deep.
        OSError: it cannot be written.
    """
    for name in ("proc", "dev", "sys"):
        place = os.path.join(root, name)
        if not is_directory(place):
            clear(place)
            os.mkdir(place, 0o755)
    for name in ("tmp", "etc"):
        if not os.path.lexists(below(root, resolve(root, name))):
            place = below(root, make_directory(name))
            if name == "tmp":
                os.chmod(place, 0o1777)  # noqa: S103 - as everywhere
    _add_hosts(root)


def _add_hosts(root: Path) -> None:
    # Container engines write it for every container; here, where the network is none or the host's, one does.
    place = below(root, resolve(root, "etc/hosts"))
    with contextlib.suppress(OSError):  # /etc is no directory, say: the image's own affair
        if os.path.lexists(place):
            found = os.lstat(place)
            if not stat.S_ISREG(found.st_mode) or found.st_size:  # to open a pipe would wait for ever for its reader
                return
            os.unlink(place)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_HOSTS)
