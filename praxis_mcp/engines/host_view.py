"""The host's file system as a local tool sees it: all of it to read, nothing to write, credentials out of sight.

``/tmp`` and ``/var/tmp`` are fresh ones of the call's own, as is the server's temporary directory wherever that lies:
other calls' files and records are in it. So is ``/run``, whose sockets (the container engine's, the session bus') would
each be a way out: read-only binds do not keep anyone from connecting. What the contract mounts lies on top.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH110, PTH112

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from praxis_mcp.engines.bubblewrap import system_mounts
from praxis_mcp.engines.mount_layout import MountLayout
from praxis_mcp.home import home
from praxis_mcp.plans.model import Mount, Plan
from praxis_mcp.plans.sensitive import hidden_places
from praxis_mcp.plans.view import by_depth, is_below
from praxis_mcp.settings import Settings

HOME = "/tmp/home"  # noqa: S108 - inside the sandbox
WORK = "/tmp/work"  # noqa: S108
"""A call's own home and default working directory, in its own /tmp."""

_PRIVATE = ("/tmp", "/var/tmp", "/run")  # noqa: S108
_OF_SERVERS = "praxis-mcp-"  # how the names of their temporary directories begin
# Where /etc/resolv.conf may lead, and where NixOS keeps its programs.
_KEPT_OF_RUN = (
    "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman",
    "/run/current-system", "/run/booted-system", "/run/wrappers", "/run/opengl-driver",
)  # fmt: skip


class HostView(MountLayout):
    """Builds the file system options of one command on the host."""

    def build(self, plan: Plan, settings: Settings, artifacts: Path | None) -> None:
        """Lay it all out.

        Args:
            plan: what is to be seen.
            settings: the project root, and what must stay hidden.
            artifacts: directory on the host for the plan's `artifact_dir`.

        Raises:
            ExecutionError: a mount or file has no place.
        """
        fixed = plan.blueprint
        mounts = list(fixed.mounts)
        if artifacts is not None and fixed.artifact_dir is not None:
            mounts.append(Mount(artifacts, fixed.artifact_dir, writable=True))
        seen = [path for path in (str(settings.root), fixed.working_dir) if path is not None]
        private, singly = _temporary(seen)
        self._base(private)
        for path in _exposed(seen, private):
            self.bind(path, path)
        for path in (*private, *singly, *_hidden(settings)):
            self.hide(path)
        for mount in by_depth(mounts):
            self.lay(mount, grows=mount.source == artifacts)
        for file in plan.call.files:
            self.put(file)

    def _base(self, private: Iterable[str]) -> None:
        self.root("/")
        self.add(system_mounts(), "/proc", "/dev")
        for path in dict.fromkeys((*(os.path.realpath(path) for path in (*_PRIVATE, "/var/run")), *private)):
            if os.path.isdir(path):
                self.empty(path)
        for path in (HOME, WORK):
            self.add(["--dir", path], path)
        for path in _KEPT_OF_RUN:
            if os.path.exists(path):
                self.bind(path, path)


def _temporary(seen: Iterable[str]) -> tuple[list[str], list[str]]:
    """The server's temporary directory, where other calls' records and files are: as a place to be private, or else,
    where more would be missed (it is the home directory, or holds programs), as what servers have in it now."""
    place = os.path.realpath(tempfile.gettempdir())
    if place in _PRIVATE or is_below(place, _PRIVATE):
        return [], []
    # Whole environments lie in some of them: TMPDIR=/scratch/me, and conda in /scratch/me/conda.
    programs = [sys.prefix, *os.environ.get("PATH", "").split(os.pathsep)]
    needed = [os.path.realpath(path) for path in (home() or "/", *filter(None, programs))]
    if place not in ("/", *needed, *map(os.path.realpath, seen)) and not any(
        is_below(path, [place]) for path in needed
    ):
        return [place], []
    with os.scandir(place) as entries:
        return [], [entry.path for entry in entries if entry.name.startswith(_OF_SERVERS)]


def _exposed(seen: Iterable[str], private: Iterable[str]) -> Iterator[str]:
    """Where the project and the working directory lie in a place that is otherwise the call's own, as under /tmp:
    readable there as anywhere else."""
    places = (*_PRIVATE, *private)
    for path in seen:
        for spelling in dict.fromkeys((path, os.path.realpath(path))):
            if is_below(spelling, places):
                yield spelling


def _hidden(settings: Settings) -> Iterator[str]:
    """Where it lies what the tool must not see; only what the server could open, since each costs 0.2 ms."""
    for path in hidden_places(settings):
        if os.access(path, os.R_OK) or os.access(path, os.W_OK):
            yield os.path.realpath(path)
