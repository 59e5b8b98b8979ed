"""The host's file system as a local tool sees it: the system to read, nothing to write, people's files out of sight.

``/tmp`` and ``/var/tmp`` are fresh ones of the call's own, as is the server's temporary directory wherever that is:
other calls' files and records are in it. So is ``/run``, whose sockets (the container engine's, the session bus') would
each be a way out: read-only binds do not keep anyone from connecting.

Home directories are empty, this user's and all others': a list of the places in them that hold credentials would never
be whole. Of what is hidden a command sees what the contract mounts, the project, the contract's folder, its working
directory, what the settings list, and what its own program needs to run (`ProgramFiles`).
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH110, PTH112, PTH118

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from praxis_mcp.engines.host.program_files import ProgramFiles
from praxis_mcp.engines.mounts.layout import FOR_MOUNTS, MountLayout
from praxis_mcp.plans.model import Mount, Plan
from praxis_mcp.plans.paths import hidden_places
from praxis_mcp.plans.view import by_depth, is_below
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.files import home, home_directories

HOME = "/tmp/home"  # noqa: S108 - inside the sandbox
WORK = "/tmp/work"  # noqa: S108
"""A call's own home and default working directory, in its own /tmp."""

_PRIVATE = ("/tmp", "/var/tmp", "/run")  # noqa: S108
_SIZE = 1024**3
"""Bytes of each of the places that are the call's own; they lie in memory, and count against the memory limit."""
_OF_SERVERS = "praxis-mcp-"  # how the names of their temporary directories begin
# Where /etc/resolv.conf may lead, where NixOS keeps its programs, and a "home" in which only programs lie.
_KEPT = (
    "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman",
    "/run/current-system", "/run/booted-system", "/run/wrappers", "/run/opengl-driver",
    "/home/linuxbrew/.linuxbrew",
)  # fmt: skip


class HostView(MountLayout):
    """Lays out the file system of one command on the host."""

    def __init__(self) -> None:
        super().__init__()
        self._program = ""

    @property
    def hidden_program(self) -> str | None:
        """The command's program where the host has it, by a path, and the view hides it."""
        path = self._program
        return path if path and self._view.origin(self.resolve(path)) is None and os.path.exists(path) else None

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
        listed = [str(path.expanduser()) for path in settings.engines.local.visible]
        seen = [path for path in (str(settings.root), fixed.working_dir, fixed.contract_dir, *listed) if path]
        private, singly = _temporary(seen)
        homes = home_directories()
        own = tuple(dict.fromkeys((*(os.path.realpath(path) for path in (*_PRIVATE, "/var/run")), *private)))
        self._base(own, homes)
        self._show(seen, homes, own, settings)
        for path in (*private, *singly):
            self.hide(path)
        self._show_program(plan, homes, own)
        for path in _hidden(settings):
            self.hide(path)
        for mount in by_depth(mounts):
            self.lay(mount, grows=mount.source == artifacts)
        for file in plan.call.files:
            self.put(file)

    def _base(self, own: Iterable[str], homes: Iterable[str]) -> None:
        self.root("/")
        self.system()
        for path in own:
            if os.path.isdir(path):
                self.empty(path, _SIZE)
        for path in homes:
            if self._view.origin(path) is not None:
                self.empty(path, FOR_MOUNTS)
                self._opened.append(path)
        for path in (HOME, WORK):
            self.new_directory(path)
        for path in _KEPT:
            if os.path.exists(path):
                self.bind(path, path)

    def _show(self, seen: Iterable[str], homes: Sequence[str], own: Sequence[str], settings: Settings) -> None:
        """What of the hidden places is readable all the same."""
        consent = (*settings.policy.sensitive_paths, *settings.engines.local.visible)
        allowed = {os.path.realpath(path.expanduser()) for path in consent}
        files = ProgramFiles()
        for path in seen:
            real = os.path.realpath(path)
            if not _opens_a_home(real, homes) or real in allowed:
                files.add_place(path)
        self._lay_files(files, homes, own)

    def _show_program(self, plan: Plan, homes: Sequence[str], own: Sequence[str]) -> None:
        program, files = plan.call.argv[0], ProgramFiles()
        directory = plan.blueprint.working_dir or WORK
        path = plan.call.env.get("PATH", os.environ.get("PATH", os.defpath))
        files.add_program(program, path, directory)
        for place in list(files.places):
            if _opens_a_home(place, homes):
                del files.places[place]
        self._lay_files(files, homes, own)
        if "/" in program:
            self._program = os.path.join(directory, program)

    def _lay_files(self, files: ProgramFiles, homes: Sequence[str], own: Sequence[str]) -> None:
        """Files and directories that are hidden, and the links that lead to them."""
        hidden = (*homes, *own)
        shown = [place for place in files.places if place in homes or is_below(place, hidden)]
        for place in sorted(shown, key=lambda path: path.count("/")):
            if self._view.origin(place) is None:  # not in one that is shown already
                self.lay(Mount(Path(place), place))
        for link, target in files.links.items():
            if is_below(link, hidden) and self._view.origin(link) is None:
                self.link(link, target)


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


def _opens_a_home(path: str, homes: Sequence[str]) -> bool:
    """Whether showing it would show a whole home directory."""
    return any(home == path or is_below(home, [path]) for home in homes)


def _hidden(settings: Settings) -> Iterator[str]:
    """Where it is what the tool must not see; only what the server could open, since each costs 0.2 ms."""
    for path in hidden_places(settings):
        if os.access(path, os.R_OK) or os.access(path, os.W_OK):
            yield os.path.realpath(path)
