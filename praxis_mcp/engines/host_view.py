"""The host's file system as a local tool sees it: all of it to read, nothing to write, credentials out of sight.

``/tmp`` and ``/var/tmp`` are fresh ones of the call's own, and so is ``/run``, whose sockets (the container engine's,
the session bus') would each be a way out: read-only binds do not keep anyone from connecting. What the contract mounts
lies on top.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH110, PTH112, PTH115, PTH118, PTH120

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from praxis_mcp.engines.bubblewrap import system_mounts
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import CallFile, Mount, Plan
from praxis_mcp.plans.paths import sensitive_home_paths
from praxis_mcp.settings import Settings

HOME = "/tmp/home"  # noqa: S108 - inside the sandbox
WORK = "/tmp/work"  # noqa: S108
"""A call's own home and default working directory, in its own /tmp."""

_PRIVATE = ("/tmp", "/var/tmp", "/run")  # noqa: S108
# Where /etc/resolv.conf may lead, and where NixOS keeps its programs.
_KEPT_OF_RUN = (
    "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman",
    "/run/current-system", "/run/booted-system", "/run/wrappers", "/run/opengl-driver",
)  # fmt: skip
# The storage of container engines is hidden, too: what they mount later on would appear there, and writable.
_HIDDEN = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssh", "/etc/krb5.keytab", "/root/.ssh",
    "/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib/kubelet",
)  # fmt: skip
_MAX_SIBLINGS = 256


class HostView:
    """Builds the file system options of one sandbox. Opens descriptors: close them once bubblewrap has started."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.descriptors: list[int] = []
        # What lies where, later ones on top: path for the tool → path on the host, None for what only the sandbox has.
        self._layers: list[tuple[str, str | None]] = []
        self._writable: list[str] = []
        self._opened: list[str] = []

    def close(self) -> None:
        """Close the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())

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
        mounts = [Mount(mount.source, _real(mount.target), mount.writable) for mount in fixed.mounts]
        mounts.sort(key=lambda mount: mount.target.count("/"))
        if artifacts is not None and fixed.artifact_dir is not None:
            mounts.append(Mount(artifacts, _real(fixed.artifact_dir), writable=True))
        files = [CallFile(_real(file.path), file.content) for file in plan.call.files]
        targets = [mount.target for mount in mounts]
        first = [path for path in (*targets, *(file.path for file in files)) if not _is_below(path, targets)]
        self._base(first)
        for path in _exposed(str(settings.root), fixed.working_dir):
            self._bind(path, path)
        for path in first:
            self._make_room(path)
        for path in _hidden(settings):
            self._hide(path)
        for mount in mounts:
            self._make_room(mount.target)
            self._bind(str(mount.source), mount.target, writable=mount.writable)
        for file in files:
            self._make_room(file.path)
            self._put(file)
        for path in self._opened:
            self.words += ["--remount-ro", path]

    def _base(self, targets: Iterable[str]) -> None:
        if all(os.path.lexists("/" + path.split("/")[1]) for path in targets):
            self._bind("/", "/")
        else:
            # A read-only root has no room for a new directory, so a root of our own holds what the host's does: that
            # costs some 3 ms, one bind mount for each entry.
            self._open("/")
        self.words += system_mounts()
        self._layers += [("/proc", None), ("/dev", None)]
        for path in dict.fromkeys(os.path.realpath(path) for path in (*_PRIVATE, "/var/run")):
            if os.path.isdir(path):
                self._empty(path)
        for path in (HOME, WORK):
            self.words += ["--dir", path]
        for path in _KEPT_OF_RUN:
            if os.path.exists(path):
                self._bind(path, path)

    def _bind(self, source: str, target: str, *, writable: bool = False) -> None:
        self.words += ["--bind" if writable else "--ro-bind", source, target]
        self._layers.append((target, source))
        if writable:
            self._writable.append(target)

    def _empty(self, path: str) -> None:
        self.words += ["--tmpfs", path]
        self._layers.append((path, None))

    def _hide(self, path: str) -> None:
        origin = self._origin(path)
        if origin is None:
            return
        if os.path.isdir(origin):
            self._empty(path)
        elif os.path.exists(origin):
            self.words += ["--ro-bind", "/dev/null", path]
            self._layers.append((path, None))

    def _put(self, file: CallFile) -> None:
        descriptor = os.memfd_create("praxis-file")
        self.descriptors.append(descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            copy.write(file.content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self.words += ["--ro-bind-data", str(descriptor), file.path]
        self._layers.append((file.path, None))

    def _origin(self, path: str) -> str | None:
        """Where on the host that lies which the tool sees at `path`; None where only the sandbox has it."""
        for target, source in reversed(self._layers):
            if path == target or _is_below(path, [target]):
                return None if source is None else os.path.join(source, path[len(target) :].lstrip("/"))
        return None

    def _make_room(self, path: str) -> None:
        """See to it that something can be mounted at `path`, which may not exist yet."""
        origin = self._origin(path)
        if origin is None or os.path.lexists(origin):
            return
        place = path
        while not os.path.lexists(origin):
            place = os.path.dirname(place)
            origin = self._origin(place)
            if origin is None:
                return
        if not os.path.isdir(origin):
            raise ExecutionError(f"{path} cannot exist for the tool: {place} is a file.")
        if _is_below(path, self._writable):
            # Bubblewrap would create it there, and leave it behind on the host.
            raise ExecutionError(
                f"{path} would lie inside a writable mount, where it does not exist.",
                remedy=f"Create it on the host, at {origin}, or choose another place.",
            )
        self._open(place)

    def _open(self, path: str) -> None:
        """Lay a fresh directory over `path` that holds the same entries and has room for more."""
        origin = self._origin(path) or path
        entries = sorted(os.scandir(origin), key=lambda entry: entry.name)
        if len(entries) > _MAX_SIBLINGS:
            raise ExecutionError(
                f"{path} has more than {_MAX_SIBLINGS} entries, too many to make room for another one.",
                remedy="Use a path that exists, or one directly below /, such as /work.",
            )
        if path != "/":  # bubblewrap's own root is such a directory already
            self.words += ["--tmpfs", path]
        self._layers.append((path, None))
        self._opened.append(path)
        for entry in entries:
            name = os.path.join(path, entry.name)
            if name in ("/proc", "/dev"):
                continue
            if entry.is_symlink():
                self.words += ["--symlink", os.readlink(entry.path), name]
            else:
                self.words += ["--ro-bind-try", entry.path, name]
            self._layers.append((name, entry.path))


def _real(path: str) -> str:
    """Where the host's links lead: bubblewrap would follow an absolute one (/var/run → /run) outside its new root."""
    return path if _is_below(path, _PRIVATE) else os.path.realpath(path)


def _exposed(root: str, working_dir: str | None) -> Iterator[str]:
    """Where the project and the working directory lie in a place that is otherwise the call's own, as under /tmp:
    readable there as anywhere else."""
    for path in (root, working_dir):
        if path is not None:
            for spelling in dict.fromkeys((path, os.path.realpath(path))):
                if _is_below(spelling, _PRIVATE):
                    yield spelling


def _hidden(settings: Settings) -> Iterator[str]:
    """What no tool needs and every thief wants; only what the server could open, since each costs 0.2 ms."""
    places = [*_HIDDEN, *map(str, sensitive_home_paths()), *_engine_sockets(settings)]
    places += [str(source.file.expanduser()) for source in settings.secrets.values() if source.file is not None]
    if settings.records.directory is not None:
        places.append(str(settings.root / settings.records.directory))
    for path in places:
        if os.access(path, os.R_OK) or os.access(path, os.W_OK):
            yield os.path.realpath(path)


def _engine_sockets(settings: Settings) -> Iterator[str]:
    engines = settings.engines
    for address in (
        engines.docker.host,
        engines.dagger.runner_host,
        *map(os.environ.get, ("DOCKER_HOST", "CONTAINER_HOST", "_EXPERIMENTAL_DAGGER_RUNNER_HOST")),
    ):
        if address and address.startswith("unix://"):
            yield urlsplit(address).path


def _is_below(path: str, places: Iterable[str]) -> bool:
    return any(path.startswith(place.rstrip("/") + "/") and path != place for place in places)
